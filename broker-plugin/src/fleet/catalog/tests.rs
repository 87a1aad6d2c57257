use whimbrel_protocol::testing::Fixture;

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// A release as the service reads it; its image is made of `filling`.
fn release(fixture: &Fixture, filling: u8, sequence: u64, chunk_size_log2: u64) -> Release {
    let made = fixture.release(vec![filling; 5000], sequence, chunk_size_log2);
    Release::read(&made.envelope, &fixture.root(), NOW).unwrap()
}

fn payload(release: &Release) -> PayloadRow {
    let spec = &release.payloads[0].spec;
    PayloadRow { index: spec.index, image: spec.images[0], layout: spec.layout, added: NOW }
}

#[test]
fn as_many_releases_are_stored_as_may_be_and_one_that_is_there_may_come_again() {
    let fixture = Fixture::new();
    let mut catalog = Catalog::new(2);
    for sequence in [1, 2] {
        let release = release(&fixture, 1, sequence, 10);
        assert_eq!(catalog.check(&release), Ok(true));
        catalog.enter(release);
    }
    assert_eq!(catalog.check(&release(&fixture, 1, 3, 10)), Err(CatalogError::Full { limit: 2 }));
    assert_eq!(catalog.check(&release(&fixture, 1, 2, 10)), Ok(false));
    assert_eq!(catalog.releases().len(), 2);
}

#[test]
fn a_sequence_number_of_a_class_belongs_to_one_image() {
    let fixture = Fixture::new();
    let mut catalog = Catalog::new(10);
    let first = release(&fixture, 1, 5, 10);
    let digest = first.digest;
    catalog.enter(first.clone());
    let clash = Err(CatalogError::Sequence { other: digest, sequence: 5 });
    assert_eq!(catalog.check(&release(&fixture, 2, 5, 10)), clash);
    assert_eq!(catalog.check(&release(&fixture, 1, 5, 11)), Ok(true), "the same image, cut otherwise");
    assert_eq!(catalog.check(&release(&fixture, 2, 6, 10)), Ok(true), "another number");
    let other_class = Release { class: ClassId([9; 16]), ..release(&fixture, 2, 5, 10) };
    assert_eq!(catalog.check(&other_class), Ok(true));
}

#[test]
fn a_release_is_complete_when_each_of_its_payloads_is_there() {
    let fixture = Fixture::new();
    let mut catalog = Catalog::new(10);
    let (first, second) = (release(&fixture, 1, 1, 10), release(&fixture, 2, 2, 10));
    catalog.enter(first.clone());
    catalog.enter(second.clone());
    assert_eq!(catalog.missing(&first), [&first.payloads[0].spec]);
    assert!(catalog.live(&first).is_empty());
    catalog.enter_payload(payload(&first));
    assert!(catalog.missing(&first).is_empty());
    assert_eq!(catalog.missing(&second).len(), 1);
    catalog.enter_payload(payload(&second));
    let [(live, number)] = catalog.live(&second)[..] else { panic!() };
    assert_eq!(live.tag, whimbrel_protocol::ids::PayloadTag::of(&second.payloads[0].spec.index));
    assert_eq!(catalog.payload(number), Some(&payload(&second)));
    assert_ne!(catalog.live(&first)[0].1, number, "each has its own number");
    // A damaged one is missing again, and has another number when it comes back: nobody serves the old bytes.
    catalog.forget_payload(number);
    assert_eq!(catalog.missing(&second).len(), 1);
    catalog.enter_payload(payload(&second));
    assert_ne!(catalog.live(&second)[0].1, number);
    let again = catalog.live(&second)[0].1;
    catalog.enter_payload(payload(&second));
    assert_eq!(catalog.live(&second)[0].1, again, "one that is there stays");
    assert_eq!(catalog.spec(&first.payloads[0].spec.index), Some(&first.payloads[0].spec));
    assert_eq!(catalog.spec(&Digest([7; 32])), None);
}

#[test]
fn an_image_is_known_by_the_newest_release_of_its_class_that_installs_it() {
    let fixture = Fixture::new();
    let mut catalog = Catalog::new(10);
    let image = release(&fixture, 1, 1, 10).images[0].digest.short();
    let class = fixture.class;
    assert!(catalog.of_image(class, image).is_none());
    for sequence in [2, 3, 1] {
        catalog.enter(release(&fixture, 1, sequence, 10));
    }
    catalog.enter(release(&fixture, 2, 9, 10));
    assert_eq!(catalog.of_image(class, image).unwrap().sequence, 3);
    let later = Release { added: NOW.plus_secs(1), ..release(&fixture, 1, 3, 11) };
    catalog.enter(later.clone());
    assert_eq!(catalog.of_image(class, image).unwrap().digest, later.digest);
    assert!(catalog.of_image(ClassId([9; 16]), image).is_none());
    assert!(later.offer(later.payloads[0].spec.index.short()).is_some());
    assert!(later.offer(image).is_none());
}

#[test]
fn a_name_is_found_by_enough_of_its_digits() {
    let named = || [("abcd00".to_owned(), 1), ("abcd11".to_owned(), 2)].into_iter();
    assert_eq!(find_by_hex("x", named(), "ABCD1"), Ok(2));
    assert!(matches!(find_by_hex("x", named(), "abcd"), Err(CatalogError::Several { .. })));
    assert!(matches!(find_by_hex("x", named(), "abce"), Err(CatalogError::None { .. })));
    for bad in ["", "abc", "wxyz", "ab cd", &"a".repeat(65)] {
        assert!(matches!(find_by_hex("x", named(), bad), Err(CatalogError::Prefix { .. })), "{bad}");
    }
}
