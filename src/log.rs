//! The log: lines on stderr, each with a level and a facility.
//!
//! Code logs with the `log` crate. The facility is the macro's `target`, under the names that ipfs-cluster
//! has (`raft`, `restapi`, `pintracker`, …, see [`facilities`]); a line without one gets the facility of its
//! module, and lines of libraries that of [`LIBRARIES`]. Levels are set per facility: `info,raft:debug`.
//!
//! A line looks as in ipfs-cluster, `time\tLEVEL\tfacility\tmessage`; under systemd, which adds the time by
//! itself, it is `<priority>facility: message`. A message that repeats itself is written a few times and
//! then counted (a log on an SD card is a cost). Text from peers and clients may be in a message, so that
//! control characters never reach the terminal and no message can look like two lines of the log.
//!
//! This module must never fail or block for long: a line that stderr does not take is lost.

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use ::log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The same message is written this often within [`REPEAT_WINDOW`], then only counted.
pub const REPEAT_BURST: u32 = 5;
/// After this time a repeated message is written again, with the count of those left out.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(10);
/// The most different messages that are remembered for counting.
const REPEAT_MEMORY: usize = 256;
/// The longest line, in bytes; journald cuts at 48 KiB.
const MAX_LINE: usize = 16 * 1024;
/// The facility of lines of libraries.
pub const LIBRARIES: &str = "libraries";

/// A facility, the level it has unless told otherwise, and the beginning of the modules it stands for.
struct Facility {
    name: &'static str,
    level: LevelFilter,
    modules: &'static [&'static str],
}

const fn facility(name: &'static str, modules: &'static [&'static str]) -> Facility {
    Facility { name, level: LevelFilter::Info, modules }
}

/// ipfs-cluster's facilities, those of its libraries, and ours. Where a module is claimed twice, the longer
/// claim counts.
const FACILITIES: &[Facility] = &[
    facility("service", &["pinfold", "pinfold::daemon", "pinfold::cli", "pinfold::runtime"]),
    facility("cluster", &["pinfold::cluster"]),
    facility("restapi", &["pinfold::api", "pinfold::api::rest"]),
    facility("restapilog", &[]),
    facility("pinsvcapi", &["pinfold::api::pinning"]),
    facility("pinsvcapilog", &[]),
    facility("ipfsproxy", &["pinfold::api::proxy"]),
    facility("ipfsproxylog", &[]),
    facility("gateway", &["pinfold::api::gateway"]),
    facility("ipfshttp", &["pinfold::ipfs", "pinfold::ipfs::kubo"]),
    facility("embedded", &["pinfold::ipfs::embedded", "pinfold::ipfs::removable"]),
    facility("monitor", &["pinfold::monitor", "pinfold::metrics"]),
    facility("dsstate", &["pinfold::state"]),
    facility("store", &["pinfold::store"]),
    facility("raft", &["pinfold::consensus"]),
    facility("crdt", &[]),
    facility("pintracker", &["pinfold::tracker"]),
    facility("diskinfo", &[]),
    facility("tags", &[]),
    facility("apitypes", &["pinfold::api::types"]),
    facility("config", &["pinfold::config"]),
    facility("shardingdags", &[]),
    facility("singledags", &[]),
    facility("adder", &["pinfold::cluster::add", "pinfold::ipfs::unixfs"]),
    facility("optracker", &[]),
    facility("pstoremgr", &[]),
    facility("allocator", &["pinfold::allocator"]),
    facility("net", &["pinfold::net"]),
    facility("p2p-gorpc", &["pinfold::net::rpc"]),
    // What libraries say is of use only to those who look for a fault in them.
    Facility { name: "swarm2", level: LevelFilter::Error, modules: &["libp2p"] },
    Facility { name: "libp2p-raft", level: LevelFilter::Error, modules: &[] },
    Facility { name: "raftlib", level: LevelFilter::Error, modules: &["raft"] },
    Facility { name: "badger", level: LevelFilter::Info, modules: &[] },
    Facility { name: "badger3", level: LevelFilter::Info, modules: &[] },
    Facility { name: "pebble", level: LevelFilter::Warn, modules: &[] },
    Facility { name: LIBRARIES, level: LevelFilter::Error, modules: &[] },
];

/// The names of all facilities.
pub fn facilities() -> impl Iterator<Item = &'static str> {
    FACILITIES.iter().map(|f| f.name)
}

/// Whether a module path lies under another.
fn under(module: &str, parent: &str) -> bool {
    // Crates of one family, such as libp2p_swarm, count as modules of it.
    module
        .strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
}

fn facility_of(target: &str) -> &'static str {
    if let Some(exact) = FACILITIES.iter().find(|f| f.name == target) {
        return exact.name;
    }
    let claims = FACILITIES.iter().flat_map(|f| f.modules.iter().map(move |module| (*module, f.name)));
    claims
        .filter(|(module, _)| under(target, module))
        .max_by_key(|(module, _)| module.len())
        .map_or(LIBRARIES, |(_, name)| name)
}

/// The level of each facility.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Levels(BTreeMap<&'static str, LevelFilter>);

impl Default for Levels {
    fn default() -> Self {
        Levels(FACILITIES.iter().map(|f| (f.name, f.level)).collect())
    }
}

impl Levels {
    /// Reads `info,raft:debug`: a level for all, levels for some, the last word counting. A level for all
    /// leaves the libraries as quiet as they are, except `debug`, which is asked for to see everything.
    fn parse(spec: &str) -> Result<Self> {
        let mut levels = Levels::default();
        let parts = spec.split(',').map(str::trim).filter(|part| !part.is_empty());
        let (some, all): (Vec<&str>, Vec<&str>) = parts.partition(|part| part.contains(':'));
        for part in all {
            let level = parse_level(part)?;
            for f in FACILITIES {
                if f.level == LevelFilter::Info || level == LevelFilter::Debug {
                    levels.0.insert(f.name, level);
                }
            }
        }
        for part in some {
            let (name, level) = part.split_once(':').unwrap_or((part, ""));
            let level = parse_level(level.trim())?;
            let name = name.trim();
            if name == "*" {
                levels = Levels(facilities().map(|name| (name, level)).collect());
                continue;
            }
            let Some(known) = facilities().find(|f| *f == name) else {
                let names: Vec<&str> = facilities().collect();
                return Err(Error::invalid(format!(
                    "the log level \"{part}\" names a facility that does not exist; the facilities are {}",
                    names.join(", ")
                )));
            };
            levels.0.insert(known, level);
        }
        Ok(levels)
    }

    fn of(&self, facility: &str) -> LevelFilter {
        self.0.get(facility).copied().unwrap_or(LevelFilter::Error)
    }

    fn highest(&self) -> LevelFilter {
        self.0.values().copied().max().unwrap_or(LevelFilter::Error)
    }
}

fn parse_level(text: &str) -> Result<LevelFilter> {
    Ok(match text.to_ascii_lowercase().as_str() {
        // The names of ipfs-cluster that have no counterpart here go to their neighbours.
        "critical" | "fatal" | "panic" | "dpanic" | "error" => LevelFilter::Error,
        "warning" | "warn" => LevelFilter::Warn,
        "notice" | "info" => LevelFilter::Info,
        "debug" => LevelFilter::Debug,
        "trace" => LevelFilter::Trace,
        _ => {
            return Err(Error::invalid(format!(
                "\"{text}\" is no log level; use critical, error, warning, notice, info, debug or trace, for example \
                 \"info,raft:debug\""
            )))
        }
    })
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Time, level, facility, message; in colour or not.
    Plain {
        /// ANSI colours around the level.
        colour: bool,
    },
    /// With a priority in front and no time, for journald.
    Journal,
}

impl Style {
    fn detect() -> Self {
        if stderr_is_journal() {
            return Style::Journal;
        }
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var("IPFS_LOGGING_FMT").is_ok_and(|v| v == "nocolor")
            || std::env::var("TERM").is_ok_and(|v| v == "dumb");
        Style::Plain { colour: !unwanted && std::io::stderr().is_terminal() }
    }
}

/// systemd names the device and inode of the stream it reads. A shell inside a service inherits the variable
/// and has another stderr, so that the variable alone says nothing.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Some((device, inode)) = stream.split_once(':') else { return false };
    // The widths of these fields differ between architectures; as text they compare anywhere.
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| stat.st_dev.to_string() == device && stat.st_ino.to_string() == inode)
}

/// A message made safe for one line of the log: control characters are shown, line breaks are indented.
fn sanitise(message: &str, out: &mut String) {
    let limit = out.len() + MAX_LINE;
    for c in message.trim_end().chars() {
        if out.len() >= limit {
            out.push('…');
            return;
        }
        match c {
            '\n' => out.push_str("\n    "),
            '\t' => out.push(c),
            // Bidirectional overrides can make a line read as another.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            c => out.push(c),
        }
    }
}

/// One finished line, with its line break.
fn format_line(style: Style, time: Timestamp, level: Level, facility: &str, message: &str) -> String {
    let mut line = String::with_capacity(message.len() + 64);
    match style {
        Style::Plain { colour } => {
            let (name, paint) = match level {
                Level::Error => ("ERROR", "31"),
                Level::Warn => ("WARN", "33"),
                Level::Info => ("INFO", "34"),
                Level::Debug => ("DEBUG", "35"),
                Level::Trace => ("TRACE", "35"),
            };
            // Always three digits, so that columns stay below each other.
            let seconds = time.trunc().to_string();
            let _ = write!(line, "{}.{:03}Z\t", seconds.trim_end_matches('Z'), time.nanos / 1_000_000);
            let _ = if colour { write!(line, "\x1b[{paint}m{name}\x1b[0m") } else { write!(line, "{name}") };
            let _ = write!(line, "\t{facility}\t");
            sanitise(message, &mut line);
        }
        Style::Journal => {
            let priority = match level {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            let _ = write!(line, "<{priority}>{facility}: ");
            let mut text = String::new();
            sanitise(message, &mut text);
            // journald takes each line for an entry of its own.
            line.push_str(&text.replace('\n', &format!("\n<{priority}>")));
        }
    }
    line.push('\n');
    line
}

/// What is known of a message that may be repeating itself.
struct Seen {
    since: Instant,
    written: u32,
    left_out: u32,
    level: Level,
    facility: &'static str,
    message: String,
}

/// Counts repeated messages.
#[derive(Default)]
struct Repeats {
    seen: HashMap<u64, Seen>,
    swept: Option<Instant>,
}

/// A line that is due: a message, or the note on those left out.
type Due = (Level, &'static str, String);

impl Repeats {
    /// The lines to write now for this message: none if it is only counted.
    fn admit(&mut self, now: Instant, level: Level, facility: &'static str, message: &str) -> Vec<Due> {
        let mut due = Vec::new();
        let last = *self.swept.get_or_insert(now);
        if now.saturating_duration_since(last) >= REPEAT_WINDOW || self.seen.len() >= REPEAT_MEMORY {
            self.sweep(now, &mut due);
        }
        let mut hasher = DefaultHasher::new();
        (level, facility, message).hash(&mut hasher);
        if let Some(seen) = self.seen.get_mut(&hasher.finish()) {
            if seen.written >= REPEAT_BURST {
                seen.left_out = seen.left_out.saturating_add(1);
                return due;
            }
            seen.written += 1;
        } else {
            let message = message.to_owned();
            let seen = Seen { since: now, written: 1, left_out: 0, level, facility, message };
            self.seen.insert(hasher.finish(), seen);
        }
        due.push((level, facility, message.to_owned()));
        due
    }

    /// Forgets what is past its window (all, when the memory is full), saying how much was left out.
    fn sweep(&mut self, now: Instant, due: &mut Vec<Due>) {
        self.swept = Some(now);
        let full = self.seen.len() >= REPEAT_MEMORY;
        self.seen.retain(|_, seen| {
            let keep = !full && now.saturating_duration_since(seen.since) < REPEAT_WINDOW;
            if !keep && seen.left_out > 0 {
                let (n, text) = (seen.left_out, &seen.message);
                due.push((seen.level, seen.facility, format!("{text} (and {n} times more)")));
            }
            keep
        });
    }
}

struct Logger {
    levels: RwLock<Levels>,
    repeats: Mutex<Repeats>,
    style: Style,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let levels = self.levels.read();
        metadata.level() <= levels.of(facility_of(metadata.target()))
    }

    fn log(&self, record: &Record<'_>) {
        let facility = facility_of(record.target());
        let level = record.level();
        if level > self.levels.read().of(facility) {
            return;
        }
        let message = record.args().to_string();
        let due = {
            let mut repeats = self.repeats.lock();
            repeats.admit(Instant::now(), level, facility, &message)
        };
        let time = Timestamp::now();
        for (level, facility, message) in due {
            // One write for a line, so that lines of several threads do not mix. Nobody can be told of an error.
            let _ = std::io::stderr()
                .write_all(format_line(self.style, time, level, facility, &message).as_bytes());
        }
    }

    fn flush(&self) {}
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Checks a specification of levels, such as `info,raft:debug`.
///
/// # Errors
/// [`crate::Kind::Invalid`] naming the level or facility that is wrong, and the right ones.
pub fn check(spec: &str) -> Result<()> {
    Levels::parse(spec).map(|_| ())
}

/// Starts logging to stderr with these levels; an empty text means `info`. Called again, it changes the levels.
///
/// # Errors
/// As [`check`]. [`crate::Kind::Internal`] if another logger was installed before.
pub fn init(spec: &str) -> Result<()> {
    let levels = Levels::parse(spec)?;
    let highest = levels.highest();
    let mut fresh = false;
    let logger = LOGGER.get_or_init(|| {
        fresh = true;
        Logger { levels: RwLock::new(levels.clone()), repeats: Mutex::default(), style: Style::detect() }
    });
    if fresh {
        ::log::set_logger(logger)
            .map_err(|_| Error::internal("another logger was installed before this one"))?;
    } else {
        *logger.levels.write() = levels;
    }
    ::log::set_max_level(highest);
    Ok(())
}

/// Makes every panic, on whichever thread, print its message and backtrace and end the process: a peer
/// with a dead thread inside would look alive to the others.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        let place = info.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
        let text = format!(
            "pinfold {} has a defect and stops: panic in thread {name}{place}: {message}\n{backtrace}",
            crate::VERSION
        );
        let style = LOGGER.get().map_or(Style::Plain { colour: false }, |logger| logger.style);
        let line = format_line(style, Timestamp::now(), Level::Error, "service", &text);
        let _ = std::io::stderr().write_all(line.as_bytes());
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_libraries_have_a_facility() {
        for (target, name) in [
            ("raft", "raft"),
            ("pintracker", "pintracker"),
            ("pinfold::consensus::driver", "raft"),
            ("pinfold::api::rest::pins", "restapi"),
            ("pinfold::api::proxy", "ipfsproxy"),
            ("pinfold::ipfs::embedded::gc", "embedded"),
            ("pinfold::ipfs::kubo", "ipfshttp"),
            ("pinfold::net::rpc", "p2p-gorpc"),
            ("pinfold", "service"),
            ("libp2p_swarm::connection", "swarm2"),
            ("raft::raft", "raftlib"),
            ("rustls::client", LIBRARIES),
            ("pinfoldish", LIBRARIES),
        ] {
            assert_eq!(facility_of(target), name, "{target}");
        }
    }

    #[test]
    fn levels_are_set_for_all_and_for_some() {
        let levels = Levels::parse("warning, raft:debug,restapi:ERROR").expect("good");
        assert_eq!(levels.of("cluster"), LevelFilter::Warn);
        assert_eq!(levels.of("raft"), LevelFilter::Debug);
        assert_eq!(levels.of("restapi"), LevelFilter::Error);
        assert_eq!(levels.of("swarm2"), LevelFilter::Error);
        assert_eq!(levels.highest(), LevelFilter::Debug);
        assert_eq!(Levels::parse("raft:debug,error").expect("order").of("raft"), LevelFilter::Debug);
        assert_eq!(Levels::parse("debug").expect("all").of("swarm2"), LevelFilter::Debug);
        assert_eq!(Levels::parse("").expect("none"), Levels::default());
        assert_eq!(Levels::parse("*:trace").expect("star").of("swarm2"), LevelFilter::Trace);
    }

    #[test]
    fn a_wrong_level_or_facility_is_named_with_the_right_ones() {
        let error = check("loud").expect_err("level");
        assert!(error.message().contains("\"loud\" is no log level"), "{error}");
        let error = check("info,rfat:debug").expect_err("facility");
        assert!(error.message().contains("rfat:debug") && error.message().contains("raft"), "{error}");
        assert!(check("raft:").is_err());
        assert!(check(":debug").is_err());
    }

    #[test]
    fn lines_look_like_ipfs_cluster_s() {
        let time = Timestamp::parse("2026-11-21T03:02:43.532999Z").expect("time");
        let plain = Style::Plain { colour: false };
        assert_eq!(
            format_line(plain, time, Level::Info, "config", "Saving configuration"),
            "2026-11-21T03:02:43.532Z\tINFO\tconfig\tSaving configuration\n"
        );
        assert_eq!(
            format_line(plain, time.trunc(), Level::Warn, "raft", "x"),
            "2026-11-21T03:02:43.000Z\tWARN\traft\tx\n"
        );
        assert_eq!(format_line(Style::Journal, time, Level::Error, "raft", "a\nb"), "<3>raft: a\n<3>    b\n");
        let coloured = format_line(Style::Plain { colour: true }, time, Level::Error, "raft", "x");
        assert!(coloured.contains("\x1b[31mERROR\x1b[0m"));
    }

    #[test]
    fn a_message_cannot_forge_a_line_or_drive_the_terminal() {
        let time = Timestamp::ZERO;
        let forged = "bad name\n2026-01-01T00:00:00.000Z\tINFO\traft\tall is well\x1b[2J\u{202e}\r";
        let line = format_line(Style::Plain { colour: false }, time, Level::Info, "net", forged);
        assert!(line.lines().skip(1).all(|l| l.starts_with("    ")), "{line}");
        assert!(!line.contains('\x1b') && !line.contains('\r') && !line.contains('\u{202e}'), "{line}");
        let long = format_line(Style::Journal, time, Level::Info, "net", &"é".repeat(MAX_LINE));
        assert!(long.len() < MAX_LINE + 100);
    }

    #[test]
    fn repeated_messages_are_counted_and_the_count_is_told() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        let mut written = 0;
        for n in 0..100 {
            let now = start + Duration::from_millis(n);
            written += repeats.admit(now, Level::Warn, "net", "cannot reach peer").len();
        }
        assert_eq!(written, REPEAT_BURST as usize);
        assert_eq!(repeats.admit(start, Level::Warn, "net", "another").len(), 1, "others are not held back");
        let later = start + REPEAT_WINDOW + Duration::from_secs(1);
        let due = repeats.admit(later, Level::Info, "net", "third");
        assert_eq!(due.len(), 2);
        assert_eq!(due[0].2, "cannot reach peer (and 95 times more)");
        assert_eq!(repeats.admit(later, Level::Warn, "net", "cannot reach peer").len(), 1, "a new window");
    }

    /// Runs one of the ignored tests below in a process of its own, as logger and panic hook are the process's.
    fn in_child(test: &str) -> (std::process::ExitStatus, String) {
        let program = std::env::current_exe().expect("own path");
        let name = format!("log::tests::{test}");
        let output = std::process::Command::new(program)
            .args([name.as_str(), "--exact", "--ignored", "--nocapture"])
            .env_remove("JOURNAL_STREAM")
            .output()
            .expect("run");
        (output.status, String::from_utf8(output.stderr).expect("text"))
    }

    #[test]
    #[ignore = "runs in a child"]
    fn child_panics() {
        init("info").expect("init");
        abort_on_panic();
        let thread =
            std::thread::Builder::new().name("worker-7".into()).spawn(|| panic!("shelf {} is empty", 3));
        let _ = thread.expect("spawn").join();
        unreachable!("the process has ended");
    }

    #[test]
    fn a_panic_anywhere_ends_the_process_with_message_and_backtrace() {
        let (status, text) = in_child("child_panics");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(6),
            "SIGABRT: {status} {text}"
        );
        assert!(text.contains("\tERROR\tservice\t"), "{text}");
        assert!(text.contains("panic in thread worker-7 at ") && text.contains("shelf 3 is empty"), "{text}");
        assert!(text.contains("child_panics"), "the backtrace names the function: {text}");
    }

    #[test]
    #[ignore = "runs in a child"]
    fn child_logs() {
        init("info,restapi:error").expect("init");
        ::log::info!(target: "raft", "one {}", 1);
        ::log::debug!(target: "raft", "two");
        ::log::info!(target: "restapi", "three");
        init("debug").expect("again");
        ::log::debug!(target: "raft", "four");
        ::log::warn!("five");
        ::log::error!(target: "some_library", "six");
    }

    #[test]
    fn lines_reach_stderr_by_level_and_facility() {
        let (status, text) = in_child("child_logs");
        assert!(status.success(), "{text}");
        let lines: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("Z\t").map(|(_, rest)| rest)).collect();
        let expected =
            ["INFO\traft\tone 1", "DEBUG\traft\tfour", "WARN\tservice\tfive", "ERROR\tlibraries\tsix"];
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn the_memory_for_repeats_is_bounded() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        for n in 0..10 * REPEAT_MEMORY {
            let due = repeats.admit(now, Level::Warn, "net", &format!("message {n}"));
            assert_eq!(due.len(), 1);
            assert!(repeats.seen.len() <= REPEAT_MEMORY);
        }
    }
}
