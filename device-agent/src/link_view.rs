//! What `status` shows of the connection to the broker.

use serde::{Deserialize, Serialize};

use crate::events::messages_lost;

/// The connection to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// Whether there is one.
    pub up: bool,
    /// For how long it has been so, in seconds.
    pub for_s: u64,
    /// Why the last one ended or did not come about.
    pub last_error: Option<String>,
    /// For how many seconds nobody has answered, once two hellos in a row were in vain.
    pub no_answer_s: Option<u64>,
    /// Larger messages of chunks do not arrive, in bytes; none if nothing shows such a limit, and while larger ones
    /// are tried.
    pub messages_above: Option<u32>,
    /// Topics that this connection goes without: the broker refuses them, or closes the connection at them.
    pub left_out: Vec<String>,
    /// What suggests that another device has this one's id, or that the service has accepted another key for it: a
    /// line each.
    pub same_id: Vec<String>,
}

impl LinkView {
    /// What is wrong with it, in words.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let no_answer = self.no_answer_s.map(|seconds| format!("no answer for {seconds} s"));
        let left_out =
            (!self.left_out.is_empty()).then(|| format!("not subscribed to {}", self.left_out.join(", ")));
        let troubles = [no_answer, self.messages_above.map(messages_lost), left_out].into_iter().flatten();
        troubles.chain(self.same_id.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::StatusView;

    /// Whatever stands still says why: where to look, an operator reads here.
    #[test]
    fn status_says_what_is_wrong_with_the_link() {
        let words = |link| StatusView { link: Some(link), ..StatusView::default() }.in_words();
        let up = LinkView { up: true, for_s: 90, ..LinkView::default() };
        assert!(words(up.clone()).contains("broker    connected for 90 s\n"));
        let troubled = LinkView {
            no_answer_s: Some(45),
            messages_above: Some(4102),
            left_out: vec!["ota/g/all".to_owned(), "ota/t".to_owned()],
            same_id: vec!["another key".to_owned()],
            ..up
        };
        let words = words(troubled);
        for line in [
            "          no answer for 45 s\n",
            "          messages above 4102 bytes do not arrive: the broker's limit?\n",
            "          not subscribed to ota/g/all, ota/t\n",
            "          another key\n",
        ] {
            assert!(words.contains(line), "{line} {words}");
        }
    }
}
