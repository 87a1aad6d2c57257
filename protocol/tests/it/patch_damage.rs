//! Damaged patches, by the property and the mutator that `protocol/fuzz` has for fuzzers; `.ci/run` tries 100,000.

#[path = "../../fuzz/src/mutator.rs"]
#[allow(unreachable_pub, reason = "public there")]
mod mutator;
#[path = "../../fuzz/src/property.rs"]
#[allow(unreachable_pub, reason = "public there")]
mod property;

use property::End;
use whimbrel_protocol::patch::{Decoder, Header};

#[test]
fn damaged_patches_give_images_or_named_errors_in_bounds_and_saved_decoders_go_on_the_same() {
    let patches: [&[u8]; 2] = [
        include_bytes!("../../vectors/patch/small.patch"),
        include_bytes!("../../vectors/patch/medium.patch"),
    ];
    let mut mutator = mutator::Mutator::new(7);
    let (mut errors, mut images) = (0, 0);
    for _ in 0..500 {
        match property::patch(&mutator.data(&patches)) {
            End::Error(error) => {
                assert!(!error.to_string().is_empty());
                errors += 1;
            }
            End::Image => images += 1,
            End::Refused | End::Long => {}
        }
    }
    assert!(errors > 50, "only {errors} errors: the damage does not reach the decoder");
    eprintln!("{errors} named errors, {images} images");
}

#[test]
fn a_whole_patch_cut_in_any_way_gives_an_image() {
    let patch = include_bytes!("../../vectors/patch/small.patch");
    for seed in 0..64_u64 {
        assert_eq!(property::patch(&[&seed.to_le_bytes()[..], patch].concat()), End::Image, "{seed}");
    }
}

/// What a medium may do to a saved state that its host did not check: another image, an error, never a panic, never
/// more than the image's size.
#[test]
fn a_damaged_state_is_refused_or_goes_on_within_its_bounds() {
    let patch = include_bytes!("../../vectors/patch/medium.patch");
    let base = &include_bytes!("../../vectors/patch/medium.old")[..];
    let (header, start) = Header::decode(patch).unwrap();
    let size = usize::try_from(header.image.size).unwrap();
    let mut saved = Vec::new();
    let mut decoder = Decoder::new(header);
    let (mut at, mut done) = (start, 0);
    while !decoder.is_complete() {
        let (used, filled) = decoder.decode(&patch[at..], true, &mut &*base, &mut [0; 1501]).unwrap();
        (at, done) = (at + used, done + filled);
        saved.push((at, decoder.save()));
    }
    assert_eq!(done, size);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 16).unwrap() % below
    };
    let (mut refused, mut ended) = (0, 0);
    for round in 0..3000 {
        let (at, mut bytes) = saved[random(saved.len())].clone();
        // Half of the damage hits what comes first, which says where everything else goes.
        let reach = if round % 2 == 0 { 300 } else { bytes.len() };
        for _ in 0..=random(3) {
            let place = random(reach);
            bytes[place] ^= u8::try_from(1 + random(255)).unwrap();
        }
        let Ok(mut decoder) = Decoder::restore(header, &bytes) else {
            refused += 1;
            continue;
        };
        let (mut at, mut out) = (at, vec![0; 4096]);
        while let Ok((used, filled)) = decoder.decode(&patch[at..], true, &mut &*base, &mut out) {
            at += used;
            assert!(decoder.produced() <= header.image.size);
            if decoder.is_complete() || filled == 0 {
                break;
            }
        }
        ended += 1;
    }
    assert!(refused > 300 && ended > 300, "{refused} refused, {ended} went on");
}
