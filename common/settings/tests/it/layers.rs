//! Which value counts, and what wrong sources get.

use core::time::Duration;
use std::fs;
use std::path::PathBuf;

use whimbrel_settings::{Origin, Program, Secret, Sources, Values, read, settings};

settings! {
    /// A table.
    ["link"] pub(crate) struct Link {
        /// How long to wait, 1s to 1m.
        pub(crate) wait: Duration = "10s" => read::duration(Duration::from_secs(1)..=Duration::from_secs(60));
        /// Who we are. Required.
        pub(crate) client_id: String, such as "me" => read::text();
        /// Who may come.
        pub(crate) allowed: Vec<String> = "" => read::list();
        /// Threads, 1 to 8.
        ///
        /// More do not help.
        pub(crate) threads: usize = "2" => read::number(1..=8);
        /// Whether to listen.
        pub(crate) listen: bool = "false" => read::switch();
        /// A file.
        pub(crate) file: PathBuf = "data" => read::path();
    }
    /// A table that another program has, too.
    ["common"] pub(crate) struct Common {
        /// A name.
        pub(crate) name: Option<String>, such as "n" => read::optional(read::text());
    }
}

pub(crate) const PROGRAM: Program = Program {
    name: "prog",
    variables: "PROG__",
    set: "link.client-id=me",
    tables: &[Link::TABLE, Common::TABLE.shared()],
    others: &["theirs"],
};

/// A folder with a configuration file.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("prog.toml"), text).unwrap();
        Self(folder)
    }

    fn sources(&self) -> Sources {
        Sources { file: Some(self.0.path().join("prog.toml")), ..Sources::default() }
    }

    fn values(&self) -> Result<Values, String> {
        PROGRAM.values(&self.sources()).map_err(|error| error.to_string())
    }

    fn link(&self) -> Result<Link, String> {
        Link::read(&self.values()?).map_err(|error| error.to_string())
    }
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let wait = |sources: &Sources| {
        let values = PROGRAM.values(sources).unwrap();
        (values.setting("link.wait").unwrap().value.clone(), values.is_said("link.wait"))
    };
    let bare = Folder::with("");
    assert_eq!(wait(&bare.sources()), ("10s".to_owned(), false));
    let folder = Folder::with("[link]\nwait = \"11s\"\n");
    let mut sources = folder.sources();
    assert_eq!(wait(&sources), ("11s".to_owned(), true));
    sources.environment =
        environment(&[("PROG__LINK__WAIT", "12s"), ("PROG_LINK_WAIT", "1s"), ("OTHER", "x")]);
    assert_eq!(wait(&sources).0, "12s");
    sources.sets = vec!["link.wait = 13s".to_owned()];
    assert_eq!(wait(&sources).0, "13s");
    sources.sets.push("LINK.WAIT=14s".to_owned());
    assert_eq!(wait(&sources).0, "14s");
}

#[test]
fn every_kind_of_value_is_read_from_every_layer() {
    let folder = Folder::with(
        "[link]\nwait = \"1m\"\nclient-id = \"a\"\nallowed = [\"x 1\", \"y\"]\nthreads = 3\nlisten = true\nfile = \"f\"\n\
         [common]\nname = \"n\"\nunknown = 1\n[theirs]\nx = 1\n",
    );
    let link = folder.link().unwrap();
    assert_eq!((link.wait.as_secs(), link.client_id.as_str(), link.threads, link.listen), (60, "a", 3, true));
    assert_eq!(link.allowed, ["x 1", "y"]);
    assert_eq!(link.file, folder.0.path().join("f"));
    assert_eq!(Common::read(&folder.values().unwrap()).unwrap().name.as_deref(), Some("n"));

    // Text in quotes is the same value, and a variable has nothing but text.
    let quoted =
        Folder::with("[link]\nclient-id = \"a\"\nthreads = \"3\"\nlisten = \"on\"\n").link().unwrap();
    assert_eq!((quoted.threads, quoted.listen), (3, true));
    let sources = Sources {
        environment: environment(&[
            ("PROG__LINK__CLIENT_ID", "b"),
            ("PROG__LINK__ALLOWED", "x  y"),
            ("PROG__LINK__THREADS", "4"),
            ("PROG__LINK__FILE", "/f"),
        ]),
        ..Sources::default()
    };
    let link = Link::read(&PROGRAM.values(&sources).unwrap()).unwrap();
    assert_eq!((link.client_id.as_str(), link.threads, link.listen), ("b", 4, false));
    assert_eq!((link.allowed.len(), link.file), (2, PathBuf::from("/f")));
}

#[test]
fn a_wrong_file_is_one_line_with_the_place_and_what_would_be_right() {
    for (text, says) in [
        ("[link\n", "prog.toml line 1: "),
        ("x = 1\n", "prog.toml line 1: there is no key x; the tables are link, common, theirs"),
        (
            "[lnk]\nwait = \"2s\"\n",
            "prog.toml line 1: there is no key lnk; the tables are link, common, theirs",
        ),
        (
            "[link]\n\nwiat = \"2s\"\n",
            "prog.toml line 3: there is no key link.wiat; [link] has wait, client-id, allowed",
        ),
        ("[link]\nclient_id = \"a\"\n", "prog.toml line 2: there is no key link.client_id"),
        ("[link]\nwait = 10\n", "prog.toml line 2: link.wait must be text in quotes, such as wait = \"10s\""),
        (
            "[link]\nthreads = true\n",
            "prog.toml line 2: link.threads must be a whole number, such as threads = 2",
        ),
        ("[link]\nlisten = 1\n", "prog.toml line 2: link.listen must be true or false"),
        ("[link]\nallowed = \"x\"\n", "prog.toml line 2: link.allowed must be a list of texts"),
        ("[link]\nwait = \"2h\"\n", "prog.toml line 2: link.wait = \"2h\": must be between 1s and 1m"),
        ("", "prog.toml, such as \"me\""),
    ] {
        let refused = Folder::with(text).link().map(|_| ()).unwrap_err();
        assert!(refused.contains(says) && !refused.contains('\n'), "{text:?}: {refused}");
    }
    let large = Folder::with(&"# long\n".repeat(10_000)).link().map(|_| ()).unwrap_err();
    assert!(large.contains("at most 65536 are read"), "{large}");
    let missing = Sources { file: Some(PathBuf::from("/nowhere/prog.toml")), ..Sources::default() };
    let missing = PROGRAM.values(&missing).unwrap_err().to_string();
    assert!(missing.starts_with("there is no configuration file /nowhere/prog.toml"), "{missing}");
    let nothing = PROGRAM.values(&Sources::default()).unwrap();
    assert_eq!(
        nothing.read("link.client_id", &read::text()).unwrap_err().to_string(),
        "link.client-id is missing: write it into the configuration file (there is none here, and --config names \
         none), such as \"me\""
    );
}

#[test]
fn a_wrong_flag_or_variable_is_one_line() {
    let refused = |sources: Sources| PROGRAM.values(&sources).unwrap_err().to_string();
    let set = |text: &str| refused(Sources { sets: vec![text.to_owned()], ..Sources::default() });
    assert_eq!(set("link.wait"), "--set link.wait: must be table.key=value, such as link.client-id=me");
    assert!(set("link.x=1").starts_with("--set: there is no key link.x; [link] has wait"));
    assert!(set("wait=1").contains("the tables are link, common, theirs"));
    let variable =
        refused(Sources { environment: environment(&[("PROG__LINK__X", "1")]), ..Sources::default() });
    assert!(variable.starts_with("environment PROG__LINK__X: there is no key link.x"), "{variable}");
}

#[test]
fn a_value_can_be_refused_with_its_place_by_who_knows_what_it_relates_to() {
    let values = Folder::with("[link]\nwait = \"2s\"\n").values().unwrap();
    let refused = values.refuse("link.wait", "must be below another").to_string();
    assert!(refused.ends_with("prog.toml line 2: link.wait = \"2s\": must be below another"), "{refused}");
    assert!(matches!(values.setting("link.threads").unwrap().origin, Origin::Default));
}

#[test]
fn a_secret_is_read_from_the_file_that_a_key_names() {
    let folder = Folder::with("[link]\nclient-id = \"a\"\nfile = \"secret\"\n");
    fs::write(folder.0.path().join("secret"), "hush\n").unwrap();
    let (values, link) = (folder.values().unwrap(), folder.link().unwrap());
    let secret = values.secret("link.file", Some(&link.file), Secret::read).unwrap().unwrap();
    assert_eq!(secret.expose(), "hush");
    assert!(values.secret("link.file", None, Secret::read).unwrap().is_none());
    fs::write(folder.0.path().join("secret"), "").unwrap();
    let refused = values.secret("link.file", Some(&link.file), Secret::read).unwrap_err().to_string();
    assert!(
        refused.contains("prog.toml line 3: link.file: ") && refused.contains("on one line of its own"),
        "{refused}"
    );
}

#[test]
fn what_is_shown_says_where_each_value_comes_from() {
    let folder = Folder::with("[link]\nallowed = [\"x\", \"y\"]\n");
    let mut sources = folder.sources();
    sources.environment = environment(&[("PROG__LINK__LISTEN", "on")]);
    sources.sets = vec!["link.threads=3".to_owned()];
    let values = PROGRAM.values(&sources).unwrap();
    let text = values.show();
    let line = |key: &str| text.lines().find(|line| line.contains(key)).unwrap().to_owned();
    assert!(line("link.wait").starts_with("link.wait = \"10s\"") && line("link.wait").ends_with("# default"));
    assert!(
        line("link.allowed").contains("[\"x\", \"y\"]") && line("link.allowed").ends_with("prog.toml line 2")
    );
    assert!(
        line("link.threads").starts_with("link.threads = 3 ") && line("link.threads").ends_with("# --set")
    );
    assert!(
        line("link.listen").contains("true")
            && line("link.listen").ends_with("# environment PROG__LINK__LISTEN")
    );
    assert_eq!(line("link.client-id"), "# link.client-id is not set");
    let json = serde_json::to_value(values.shown()).unwrap();
    assert_eq!(json[3]["key"], "link.threads");
    assert_eq!((&json[3]["value"], &json[3]["origin"]), (&"3".into(), &"--set".into()));
    assert_eq!(json[1]["value"], serde_json::Value::Null);
}

#[test]
fn the_default_file_documents_every_key_and_says_nothing_new() {
    let text = PROGRAM.default_file();
    assert!(text.contains("--set link.client-id=me") && text.contains("PROG__LINK__CLIENT_ID"), "{text}");
    assert!(text.contains("\n[link]\n# How long to wait, 1s to 1m.\nwait = \"10s\"\n"), "{text}");
    assert!(text.contains("# Who we are. Required.\n# client-id = \"me\"\n"), "{text}");
    assert!(text.contains("# Threads, 1 to 8.\n#\n# More do not help.\nthreads = 2\n"), "{text}");
    assert!(text.contains("allowed = []\n") && text.contains("listen = false\n"), "{text}");
    let folder = Folder::with(&text);
    let (written, bare) = (folder.values().unwrap(), PROGRAM.values(&Sources::default()).unwrap());
    for (a, b) in written.shown().iter().zip(bare.shown()) {
        assert_eq!((&a.key, &a.value), (&b.key, &b.value));
    }
}
