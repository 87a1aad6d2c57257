//! The settings that a program has, and how one is found by its name.

/// One setting, as declared.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The table it stands in.
    pub table: &'static str,
    /// Its name in the table. Underscores of a field's name are written as hyphens.
    pub field: &'static str,
    /// What its value is written as in TOML.
    pub kind: Kind,
    /// The value if nothing else is said; `None` if there is none.
    pub default: Option<&'static str>,
    /// A value that people could write; the default, if there is one.
    pub example: &'static str,
    /// Meaning, unit, range, and when to change it; one line of the example file each.
    pub about: &'static [&'static str],
}

impl Key {
    /// The name within the table, as people write it: `client-id`.
    #[must_use]
    pub fn short(&self) -> String {
        self.field.replace('_', "-")
    }

    /// The whole name, as people write it: `broker.client-id`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.table, self.short())
    }

    /// Whether `name` is this key's. `_` counts as `-`, since variables can't have that; case does not count.
    fn is(&self, name: &str) -> bool {
        let same = |a: u8, b: u8| (if b == b'_' { b'-' } else { b.to_ascii_lowercase() }) == a;
        let own = self.name();
        own.len() == name.len() && own.bytes().zip(name.bytes()).all(|(a, b)| same(a, b))
    }
}

/// What a value is written as in TOML. Outside of the file everything is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `"..."`.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Switch,
    /// `["...", "..."]`; outside of the file separated by spaces.
    List,
}

/// A table of the file. `settings!` declares one.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its keys, in the order of the example file.
    pub keys: fn() -> Vec<Key>,
    /// Whether another program has more keys in this table, so that unknown keys in the file are no error.
    pub is_shared: bool,
}

impl Table {
    /// The same table, of which this program knows only some keys.
    #[must_use]
    pub const fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }
}

/// All settings of a program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The program's name, for the head of the example file.
    pub name: &'static str,
    /// What the names of its variables start with: `WHIMBREL_AGENT__`.
    pub variables: &'static str,
    /// A `--set` that people could write: `broker.keepalive=30s`.
    pub set: &'static str,
    /// Its tables, in the order of the example file. A name may stand twice: the keys are added.
    pub tables: &'static [Table],
    /// Tables of the same file that are other programs'.
    pub others: &'static [&'static str],
}

impl Program {
    /// Every key, table by table.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.tables.iter().flat_map(|table| (table.keys)()).collect()
    }

    /// Finds a key by its whole name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Key> {
        self.keys().into_iter().find(|key| key.is(name))
    }

    /// The names that a wrong name could have meant: the keys of its table, or the tables.
    pub(crate) fn hint(&self, name: &str) -> String {
        let name = name.to_ascii_lowercase();
        let table = name.split_once('.').map_or(name.as_str(), |(table, _)| table);
        let keys: Vec<String> = self.keys().iter().filter(|key| key.table == table).map(Key::short).collect();
        if !keys.is_empty() {
            return format!("[{table}] has {}", keys.join(", "));
        }
        let mut tables: Vec<&str> = self.tables.iter().map(|table| table.name).collect();
        tables.extend(self.others);
        tables.dedup();
        format!("the tables are {}", tables.join(", "))
    }
}

/// Declares tables of settings: a struct for each, with a field for each setting.
///
/// A field is its documentation, its name and type, `= "default"` or `, such as "example"`, and `=>` what reads it,
/// one of [`read`](crate::read). A key is called like its field, unless `as "name"` follows that. The struct gets `TABLE`, for [`Program::tables`], and `read`, which takes its values
/// out of [`Values`](crate::Values). The crate's documentation has an example.
#[macro_export]
macro_rules! settings {
    ($(
        $(#[$attribute:meta])*
        [$table:literal] $visible:vis struct $name:ident {
            $(
                $(#[doc = $about:literal])+
                $shown:vis $field:ident $(as $key:literal)? : $type:ty $(= $default:literal)? $(, such as $example:literal)?
                    => $reader:expr ;
            )+
        }
    )+) => { $(
        $(#[$attribute])*
        $visible struct $name {
            $( $(#[doc = $about])+ $shown $field: $type, )+
        }

        impl $name {
            /// The table, for the list of the program's tables.
            $visible const TABLE: $crate::Table = $crate::Table {
                name: $table,
                keys: || vec![ $( $crate::Key {
                    table: $table,
                    field: $crate::settings!(@key $field $($key)?),
                    kind: $crate::read::kind::<$type, _>(&$reader),
                    default: $crate::settings!(@default $($default)?),
                    example: $crate::settings!(@example $($default)? $($example)?),
                    about: &[ $( $about, )+ ],
                } ),+ ],
                is_shared: false,
            };

            /// Takes the values of this table.
            ///
            /// # Errors
            /// [`ConfigError`]($crate::ConfigError): the first value that is missing or wrong, with its place.
            $visible fn read(values: &$crate::Values) -> Result<Self, $crate::ConfigError> {
                Ok(Self { $( $field: values.read(concat!($table, ".", $crate::settings!(@key $field $($key)?)), &$reader)?, )+ })
            }
        }
    )+ };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
    (@example $example:literal) => { $example };
}
