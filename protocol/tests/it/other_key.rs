//! What a device does if the service has accepted another key for it.

use whimbrel_protocol::cose::{Kind, Sign1};
use whimbrel_protocol::device::{Event, Input, Output, Record};
use whimbrel_protocol::ids::KeyId;

use crate::by_hand::{ByHand, boot, events, the_hello};

#[test]
fn a_device_whose_key_is_not_the_accepted_one_says_so_and_introduces_itself_once_a_connection() {
    let mut by_hand = ByHand::new(7, Record::default(), boot());
    let accepted = KeyId([9; 4]);
    let told = |outputs: &[Output]| events(outputs).contains(&Event::OtherKey { accepted });
    let enrolments = |outputs: &[Output]| {
        let sent = outputs.iter().filter(|output| {
            let Output::Publish(message) = output else { return false };
            let object = Sign1::decode(&message.payload).ok();
            object.and_then(|object| object.claimed_kind()) == Some(Kind::Enrolment)
        });
        sent.count()
    };
    for connection in 0..2 {
        let hello = the_hello(&by_hand.feed(Input::Connected));
        let outputs = by_hand.answer(hello.nonce, |answer| answer.key = accepted);
        assert!(told(&outputs) && enrolments(&outputs) == 1, "{connection}: {outputs:?}");
        let hello = the_hello(&by_hand.feed(Input::Check));
        let outputs = by_hand.answer(hello.nonce, |answer| answer.key = accepted);
        assert!(told(&outputs) && enrolments(&outputs) == 0, "{connection}: {outputs:?}");
        // Once its own key is accepted there is nothing more to say.
        let hello = the_hello(&by_hand.feed(Input::Check));
        let outputs = by_hand.answer(hello.nonce, |_| {});
        assert!(!told(&outputs) && enrolments(&outputs) == 0, "{connection}: {outputs:?}");
        by_hand.feed(Input::Disconnected);
    }
}
