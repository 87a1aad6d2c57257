//! Errors that can be told at length or as a code.

/// Declares an error whose variants say which field, where and how much.
///
/// Each variant has a function that makes it, and code of this crate calls that. Without the feature `details` the
/// variants have no fields, so that the error is one byte and what only its text would say is not linked: 19 KB of
/// flash on a Cortex-M4. Patterns with `{ .. }` fit both.
macro_rules! refusals {
    (
        $(#[$about:meta])*
        pub enum $Error:ident {
            $(
                $(#[$doc:meta])*
                $text:literal
                $Variant:ident = $make:ident { $( $(#[$says:meta])* $field:ident: $kind:ty, )* },
            )*
        }
    ) => {
        $(#[$about])*
        #[cfg(feature = "details")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum $Error {
            $(
                $(#[$doc])*
                #[error($text)]
                $Variant { $( $(#[$says])* $field: $kind, )* },
            )*
        }

        $(#[$about])*
        #[cfg(not(feature = "details"))]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Error {
            $(
                $(#[$doc])*
                $Variant,
            )*
        }

        #[cfg(not(feature = "details"))]
        impl core::fmt::Display for $Error {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Debug::fmt(self, f)
            }
        }

        #[cfg(not(feature = "details"))]
        impl core::error::Error for $Error {}

        impl $Error {
            $(
                $(#[$doc])*
                #[must_use]
                #[inline(always)]
                pub const fn $make($( $field: $kind, )*) -> Self {
                    #[cfg(feature = "details")]
                    return Self::$Variant { $( $field, )* };
                    #[cfg(not(feature = "details"))]
                    {
                        $( let _ = $field; )*
                        Self::$Variant
                    }
                }
            )*
        }
    };
}

pub(crate) use refusals;
