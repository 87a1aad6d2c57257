use bytes::Bytes;
use whimbrel_protocol::chunk::Layout;
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::manifest::ImageId;
use whimbrel_protocol::time::UnixTime;

use super::*;
use crate::store::PayloadSpec;

fn image(number: u8) -> ImageId {
    ImageId { digest: Digest([number; 32]), size: 100_000 }
}

fn offer(name: u8, bytes: u64, base: Option<u8>) -> Offer {
    let layout = Layout::new(10, bytes).unwrap();
    let spec = PayloadSpec { index: Digest([name; 32]), layout, images: Vec::new() };
    Offer { spec, base: base.map(image) }
}

/// A release of the image that has its sequence number, with patches of so many bytes from these images.
fn release(name: u8, sequence: u8, patches: &[(u8, u64)]) -> Release {
    let mut payloads: Vec<Offer> =
        patches.iter().map(|(base, bytes)| offer(100 + base, *bytes, Some(*base))).collect();
    payloads.push(offer(sequence, 40_000, None));
    Release {
        digest: Digest([name; 32]),
        envelope: Bytes::new(),
        sequence: u64::from(sequence),
        version: format!("1.0.{sequence}"),
        vendor: VendorId([1; 16]),
        class: ClassId([2; 16]),
        image_size: 100_000,
        images: vec![image(sequence)],
        payloads,
        added: UnixTime::default(),
    }
}

fn catalog(releases: &[Release]) -> Catalog {
    let mut catalog = Catalog::new(100);
    releases.iter().for_each(|release| catalog.enter(release.clone()));
    catalog
}

/// Devices that run these images: so many of each, with the sequence number of the image.
fn running(images: &[(u8, u64)]) -> impl Iterator<Item = Running> {
    images.iter().map(|&(image, devices)| Running {
        image: ShortDigest([image; 8]),
        sequence: u64::from(image),
        devices,
    })
}

#[test]
fn every_device_is_counted_once_and_only_images_without_a_patch_are_missing() {
    let newest = release(9, 9, &[(7, 4000)]);
    let catalog = catalog(&[newest.clone(), release(8, 8, &[]), release(7, 7, &[])]);
    // 0: did not say; 9: runs it; 10: later; 7: by patch; 8: from a release; 3: from nowhere.
    let said = running(&[(0, 1), (9, 2), (10, 3), (7, 4), (8, 5), (3, 6)]);
    let bases = Bases::of(&newest, &catalog, said);
    assert_eq!((bases.devices, bases.unknown, bases.current, bases.later), (21, 1, 2, 3));
    assert_eq!(bases.patches, [(newest.payloads[0].clone(), 4)]);
    let estimate = PatchBytes { bytes: 4000, from: Source::OwnPatches };
    let missing = |image: u8, devices| Missing {
        image: ShortDigest([image; 8]),
        devices,
        sequence: u64::from(image),
        patch: Some(estimate),
    };
    assert_eq!(bases.missing, [missing(3, 6), missing(8, 5)]);
    assert_eq!((bases.devices_missing(), bases.total_saved_bytes()), (11, Some(11 * 36_000)));
    assert!(bases.is_estimate());
}

#[test]
fn a_patch_that_another_envelope_has_is_known_to_the_byte() {
    let newest = release(9, 9, &[(7, 4000)]);
    let beside = release(19, 9, &[(8, 555)]);
    let bases = Bases::of(&newest, &catalog(&[newest.clone(), beside]), running(&[(8, 2)]));
    assert_eq!(bases.missing[0].patch, Some(PatchBytes { bytes: 555, from: Source::Beside }));
    assert_eq!((bases.total_saved_bytes(), bases.is_estimate()), (Some(2 * (40_000 - 555)), false));
    // With another image it is another release, whatever its number.
    let mut other = release(19, 9, &[(8, 555)]);
    other.images = vec![image(5)];
    let bases = Bases::of(&newest, &catalog(&[newest.clone(), other]), running(&[(8, 2)]));
    assert_eq!(bases.missing[0].patch.unwrap().from, Source::OwnPatches);
}

#[test]
fn without_patches_of_its_own_a_release_is_judged_by_those_of_others_and_else_not_at_all() {
    let newest = release(9, 9, &[]);
    let others = [newest.clone(), release(8, 8, &[(6, 1000), (7, 3000)])];
    let bases = Bases::of(&newest, &catalog(&others), running(&[(8, 2)]));
    assert_eq!(bases.missing[0].patch, Some(PatchBytes { bytes: 2000, from: Source::OtherReleases }));
    let bases = Bases::of(&newest, &catalog(core::slice::from_ref(&newest)), running(&[(8, 2)]));
    assert_eq!((bases.missing[0].patch, bases.total_saved_bytes()), (None, None));
    let mut elsewhere = release(8, 8, &[(6, 1000)]);
    elsewhere.class = ClassId([3; 16]);
    let bases = Bases::of(&newest, &catalog(&[newest.clone(), elsewhere]), running(&[(8, 2)]));
    assert_eq!(bases.missing[0].patch, None, "patches of another class say nothing");
}

#[test]
fn the_image_whose_patch_saves_most_comes_first() {
    let newest = release(9, 9, &[]);
    let beside = release(19, 9, &[(6, 39_000), (7, 1000)]);
    let bases = Bases::of(&newest, &catalog(&[newest.clone(), beside]), running(&[(6, 30), (7, 2), (5, 1)]));
    let order: Vec<_> = bases.missing.iter().map(|missing| missing.image.0[0]).collect();
    // 2 x 39,000 bytes, 30 x 1,000, and one device by the ratio of the two.
    assert_eq!(order, [7, 6, 5]);
}

#[test]
fn a_patch_that_is_larger_than_the_full_payload_saves_nothing() {
    let newest = release(9, 9, &[(7, 90_000)]);
    let bases = Bases::of(&newest, &catalog(core::slice::from_ref(&newest)), running(&[(8, 2)]));
    assert_eq!(bases.total_saved_bytes(), Some(0));
}
