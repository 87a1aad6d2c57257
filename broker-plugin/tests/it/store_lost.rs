//! A database that is lost is noticed.

use crate::service_support::{On, Service};

#[test]
fn a_database_that_is_deleted_while_the_service_runs_ends_it_and_it_says_so() {
    let mut service = Service::start(On::Itself);
    std::fs::remove_file(service.path("data/whimbrel.sqlite")).unwrap();
    assert_says_that_it_is_gone(&mut service);
}

#[test]
fn a_database_that_is_replaced_while_the_service_runs_ends_it_and_it_says_so() {
    let mut service = Service::start(On::Itself);
    let copy = service.path("data/older.sqlite");
    std::fs::copy(service.path("data/whimbrel.sqlite"), &copy).unwrap();
    std::fs::rename(copy, service.path("data/whimbrel.sqlite")).unwrap();
    assert_says_that_it_is_gone(&mut service);
}

fn assert_says_that_it_is_gone(service: &mut Service) {
    let (status, said) = service.ends();
    assert_eq!(status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("whimbrel.sqlite was deleted or replaced"), "{said}");
    assert!(last.contains("put a copy"), "it says what to do: {said}");
}
