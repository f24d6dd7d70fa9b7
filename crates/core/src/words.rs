//! Enums that are written as a word in the configuration.

/// Declares an enum whose variants have one configured word each, from one table: the variants,
/// `ALL`, `name()` and `from_name()` cannot disagree.
macro_rules! configured_word {
    (
        $(#[$enum_meta:meta])*
        pub enum $Enum:ident {
            $($(#[$meta:meta])* $Variant:ident = $name:literal,)+
        }
    ) => {
        $(#[$enum_meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $Enum {
            $($(#[$meta])* $Variant,)+
        }

        impl $Enum {
            /// Every value with the word that configures it, in the order of the documentation.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($name, Self::$Variant),)+];

            /// The word that configures this value.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$Variant => $name,)+
                }
            }

            /// The value of a configured word; exact, lower case.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$Variant),)+
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use configured_word;
