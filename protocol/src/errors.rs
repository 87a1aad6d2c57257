//! Errors that can be told at length or as a code.

/// Declares an error whose variants say which field, where and how much.
///
/// A variant stands behind its text, in the words of `thiserror`. One that says something has a function that makes it,
/// and code of this workspace calls that. Without the feature `details` these variants have no fields, so that the error
/// is a byte or two, and neither what only its text would say nor the copying of it is linked: 20 KB of flash on a
/// Cortex-M4. Patterns with `{ .. }` fit both. A variant without such a function keeps what it has, because somebody
/// acts on it.
macro_rules! refusals {
    (
        $(#[$about:meta])*
        pub enum $Error:ident {
            $(
                $(#[$doc:meta])*
                ($($text:tt)*)
                $Variant:ident
                    $( ( $(#[$source:meta])* $Inner:ty ) )?
                    $( { $( $(#[$keeps:meta])* $kept:ident: $Kept:ty, )* } )?
                    $( = $make:ident { $( $(#[$says:meta])* $field:ident: $Kind:ty, )* } )?,
            )*
        }
    ) => {
        $(#[$about])*
        #[cfg(feature = "details")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum $Error {
            $(
                $(#[$doc])*
                #[error($($text)*)]
                $Variant
                    $( ( $(#[$source])* $Inner ) )?
                    $( { $( $(#[$keeps])* $kept: $Kept, )* } )?
                    $( { $( $(#[$says])* $field: $Kind, )* } )?,
            )*
        }

        $(#[$about])*
        #[cfg(not(feature = "details"))]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Error {
            $(
                $(#[$doc])*
                $Variant
                    $( ($Inner) )?
                    $( { $( $(#[$keeps])* $kept: $Kept, )* } )?,
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
                $(
                    #[doc = concat!("The error [`Self::", stringify!($Variant), "`].")]
                    #[must_use]
                    #[inline(always)]
                    pub const fn $make($( $field: $Kind, )*) -> Self {
                        #[cfg(feature = "details")]
                        return Self::$Variant { $( $field, )* };
                        #[cfg(not(feature = "details"))]
                        {
                            $( let _ = $field; )*
                            Self::$Variant
                        }
                    }
                )?
            )*
        }
    };
}

pub(crate) use refusals;
