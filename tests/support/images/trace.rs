//! What the recorder wrote, read back: every change to the files below one folder, in order, with marks in between.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// A file's number on its file system.
pub type Inode = u64;

/// One change, or a mark.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new file under this name.
    Create { inode: Inode, path: String },
    /// Bytes at an offset; `durable` when the file was opened so that a write flushes itself.
    Write { inode: Inode, at: u64, data: Arc<[u8]>, durable: bool },
    /// A new length.
    Size { inode: Inode, len: u64 },
    /// A flush of a file or folder began.
    SyncStart { inode: Inode },
    /// It returned; `ok` when it succeeded.
    Sync { inode: Inode, ok: bool },
    /// A name moved over another, or (`exchange`) both changed places.
    Rename { from: String, to: String, exchange: bool },
    /// A second name for a file.
    Link { from: String, to: String },
    /// A file's name went.
    Unlink { path: String },
    /// A folder went.
    RemoveDir { path: String },
    /// A new folder.
    MakeDir { inode: Inode, path: String },
    /// What the workload said.
    Mark(String),
    /// Something that the images cannot show.
    Odd(String),
}

/// Bytes of a record before its texts.
const HEADER: usize = 40;

/// Reads a trace.
pub fn read(file: &Path) -> Result<Vec<Event>, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut events = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (head, after) = rest.split_at_checked(HEADER).ok_or("a cut trace")?;
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let (kind, flags, inode, at) = (word(0), word(4), long(8), long(16));
        let (path, after) = after.split_at_checked(word(24) as usize).ok_or("a cut trace")?;
        let (other, after) = after.split_at_checked(word(28) as usize).ok_or("a cut trace")?;
        let (data, after) = after.split_at_checked(word(32) as usize).ok_or("a cut trace")?;
        rest = after;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let name = |bytes: &[u8]| text(bytes).trim_matches('/').to_owned();
        events.push(match kind {
            1 => Event::Create { inode, path: name(path) },
            2 => Event::Write { inode, at, data: data.into(), durable: flags & 4 != 0 },
            3 => Event::Size { inode, len: at },
            4 if flags & 32 != 0 => Event::SyncStart { inode },
            4 => Event::Sync { inode, ok: flags & 16 == 0 },
            5 => Event::Rename { from: name(path), to: name(other), exchange: flags & 8 != 0 },
            6 => Event::Unlink { path: name(path) },
            7 => Event::RemoveDir { path: name(path) },
            8 => Event::MakeDir { inode, path: name(path) },
            9 => Event::Mark(text(data)),
            10 => Event::Link { from: name(path), to: name(other) },
            11 => Event::Odd(text(path)),
            _ => return Err(format!("a record of kind {kind}")),
        });
    }
    Ok(events)
}

/// How a workload child is run: this test executable again, with one test of it that does the work.
pub struct Recording {
    /// Below this everything is recorded.
    pub root: PathBuf,
    /// Where the trace is.
    pub trace: PathBuf,
    marks: PathBuf,
}

/// The variable that tells a child what to do; without it the child's test does nothing.
pub const WORK: &str = "PINFOLD_IMAGES_WORK";

impl Recording {
    /// A recording in a folder of its own.
    pub fn new(folder: &Path) -> Recording {
        let root = folder.join("root");
        std::fs::create_dir_all(&root).expect("a folder to record");
        Recording { root, trace: folder.join("trace"), marks: folder.join("marks") }
    }

    /// The same without a trace: for failures alone.
    pub fn silent(folder: &Path) -> Recording {
        Recording { trace: PathBuf::from("/dev/null"), ..Recording::new(folder) }
    }

    /// Runs the child test `name` with `work` as its task until it ends; what it printed. A second run goes on in the
    /// same trace.
    pub fn run(&self, name: &str, work: &str) -> Result<String, String> {
        let library = library().as_ref().map_err(String::clone)?;
        let output = Command::new(std::env::current_exe().expect("the test executable"))
            .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
            .env("LD_PRELOAD", library)
            .env("PINFOLD_RECORD_ROOT", &self.root)
            .env("PINFOLD_RECORD_TRACE", &self.trace)
            .env("PINFOLD_RECORD_MARKS", &self.marks)
            .env(WORK, work)
            .output()
            .map_err(|e| format!("the child: {e}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!(
            "the child {name} ({work}) ended with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    /// The events so far.
    pub fn events(&self) -> Result<Vec<Event>, String> {
        read(&self.trace)
    }
}

/// The recorder, compiled once per run by the C compiler that building needs anyway; why not, when it cannot be.
pub fn library() -> &'static Result<PathBuf, String> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorder/recorder.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let built = folder.join(format!("recorder.{}.so", std::process::id()));
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&built, &source])
            .output()
            .map_err(|e| format!("there is no C compiler `cc`: {e}"))?;
        if !output.status.success() {
            return Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr)));
        }
        // One name for all runs; nobody sees half of it.
        let library = folder.join("recorder.so");
        std::fs::rename(&built, &library).map_err(|e| format!("the recorder: {e}"))?;
        Ok(library)
    })
}

/// The child's side: what it does is set, and marks stand between what it writes.
pub struct Child {
    /// The folder that is recorded.
    pub root: PathBuf,
    /// The task.
    pub work: String,
    marks: std::fs::File,
}

impl Child {
    /// This process as a child, if it is one.
    pub fn here() -> Option<Child> {
        let work = std::env::var(WORK).ok()?;
        let root = PathBuf::from(std::env::var_os("PINFOLD_RECORD_ROOT")?);
        let marks = std::env::var_os("PINFOLD_RECORD_MARKS")?;
        let marks = std::fs::File::options().create(true).append(true).open(marks).expect("marks");
        Some(Child { root, work, marks })
    }

    /// A mark, after everything that has happened and before everything that has not.
    pub fn mark(&self, text: &str) {
        self.order(text);
    }

    /// An order to the recorder, and its answer (see `recorder.c`).
    pub fn order(&self, text: &str) -> usize {
        use std::io::Write as _;
        (&self.marks).write(text.as_bytes()).expect("the recorder answers")
    }
}
