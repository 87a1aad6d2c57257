//! Enums whose values are words on the wire.

use whimbrel_protocol::message::Policy;

/// Declares an enum whose values are words on the wire.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:tt,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        pub enum $name {
            $($(#[$word_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// The word for it, as on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

pub(crate) use words;

/// The word for a policy in a [`CampaignOrder`](crate::CampaignOrder).
#[must_use]
pub const fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Soft => "soft",
        Policy::Forced => "forced",
        Policy::DownloadOnly => "download-only",
    }
}

/// The policy that a word stands for; `None` if it stands for none.
#[must_use]
pub fn policy_named(word: &str) -> Option<Policy> {
    [Policy::Soft, Policy::Forced, Policy::DownloadOnly]
        .into_iter()
        .find(|policy| policy_name(*policy) == word)
}
