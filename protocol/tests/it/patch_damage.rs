//! Damaged patches, by the property and the mutator that `protocol/fuzz` has for fuzzers; `.ci/run` tries 100,000.

#[path = "../../fuzz/src/mutator.rs"]
#[allow(unreachable_pub, reason = "public there")]
mod mutator;
#[path = "../../fuzz/src/property.rs"]
#[allow(unreachable_pub, reason = "public there")]
mod property;

use property::End;

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
