//! Which moments a deployment passes as its state changes.

use whimbrel_protocol::message::State;

use super::{Edge, Moment};

/// Follows the state of a deployment.
#[derive(Debug)]
pub struct Progress {
    state: State,
}

impl Default for Progress {
    fn default() -> Self {
        Self { state: State::Idle }
    }
}

impl Progress {
    /// The deployment is in `state` now, or is about to be: the moments that this makes, in order. None where it
    /// has been there already.
    #[must_use]
    pub fn enter(&mut self, state: State) -> Vec<Moment> {
        // What a resumed deployment is shown as while its medium is made ready says nothing new.
        let resumed = self.state == State::Downloading && state == State::Offered;
        if self.state == state || resumed {
            return Vec::new();
        }
        let edge = if matches!(state, State::Failed | State::Reverted) { Edge::Error } else { Edge::Leave };
        let left = Moment { state: self.state, edge };
        self.state = state;
        vec![left, Moment { state, edge: Edge::Enter }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_left_once_and_a_failure_makes_it_an_error() {
        let mut progress = Progress::default();
        let names = |moments: Vec<Moment>| moments.iter().map(Moment::to_string).collect::<Vec<_>>();
        assert_eq!(names(progress.enter(State::Downloading)), ["Idle_Leave", "Downloading_Enter"]);
        assert_eq!(names(progress.enter(State::Downloading)), Vec::<String>::new());
        assert_eq!(names(progress.enter(State::Failed)), ["Downloading_Error", "Failed_Enter"]);
        assert_eq!(names(progress.enter(State::Testing)), ["Failed_Leave", "Testing_Enter"]);
        assert_eq!(names(progress.enter(State::Reverted)), ["Testing_Error", "Reverted_Enter"]);
    }
}
