//! What the tests of `mapemu run` share: a directory with mapemu and the clients in it.

#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that everybody can read, with mapemu in it; removed in the end.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mapemu-tests-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).expect("a directory");
        fs::copy(env!("CARGO_BIN_EXE_mapemu"), dir.join("mapemu")).expect("a copy");
        for file in fs::read_dir("tests/run").expect("the sources") {
            let from = file.expect("a source").path();
            fs::copy(&from, dir.join(from.file_name().expect("a name"))).expect("a copy");
        }
        let place = Self(dir);
        place.open();
        place
    }

    /// Everybody can use what is in it.
    pub(crate) fn open(&self) {
        let all = fs::read_dir(&self.0).expect("it is there");
        let all = all.map(|file| file.expect("a file").path());
        for path in all.chain([self.0.clone()]) {
            let mode = fs::Permissions::from_mode(0o777);
            fs::set_permissions(path, mode).expect("it is ours");
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A program of C; none where there is no compiler, or no library.
    pub(crate) fn compiled(&self, name: &str, options: &[&str]) -> Option<PathBuf> {
        let program = self.path(name);
        let mut gcc = Command::new("gcc");
        gcc.arg("-o").arg(&program);
        gcc.arg(self.path(&format!("{name}.c"))).args(options);
        self.built(&mut gcc, program)
    }

    /// An object with programs of BPF.
    pub(crate) fn object(&self) -> Option<PathBuf> {
        let object = self.path("object.o");
        let mut clang = Command::new("clang");
        clang.args(["-O2", "-g", "-target", "bpf"]);
        clang.arg(format!(
            "-I/usr/include/{}-linux-gnu",
            std::env::consts::ARCH
        ));
        clang.arg("-c").arg(self.path("object.bpf.c"));
        clang.arg("-o").arg(&object);
        self.built(&mut clang, object)
    }

    pub(crate) fn built(&self, compiler: &mut Command, made: PathBuf) -> Option<PathBuf> {
        let program = compiler.get_program().to_string_lossy().into_owned();
        let output = compiler.output();
        if !output.is_ok_and(|output| output.status.success()) {
            return missing(&format!(
                "{program}, or the library that {} needs",
                made.display()
            ));
        }
        self.open();
        Some(made)
    }

    /// A command, as an ordinary user without any right.
    pub(crate) fn ordinary(&self, program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--no-new-privs",
            ]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(&self.0).env_remove("RUST_BACKTRACE");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    pub(crate) fn mapemu(&self, options: &[&str]) -> Command {
        let mut command = self.ordinary(self.path("mapemu"));
        command.arg("run").args(options).arg("--");
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Nothing, with a line that says what is missing.
pub(crate) fn missing<T>(what: &str) -> Option<T> {
    assert!(
        std::env::var_os("MAPEMU_REQUIRE_CLIENTS").is_none(),
        "missing: {what}"
    );
    eprintln!("skipped: {what} is missing");
    None
}
