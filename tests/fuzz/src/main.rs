//! All fuzz targets in one executable behind libFuzzer. `tests/fuzz/run` builds and runs it.
//!
//! The environment variable `PINFOLD_FUZZ` names the target; what a target is and checks is written in
//! `tests/fuzz/targets`. Around each input there is one more check, that of memory: what an input of n bytes may make the
//! process hold is limited by the target's allowance, whatever lengths and counts the input claims.
//!
//! `PINFOLD_FUZZ=list` prints the names and the longest input of each target instead; `PINFOLD_FUZZ=seeds` writes what
//! fuzzing begins with into the folder that `PINFOLD_FUZZ_SEEDS` names, a folder per target.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod memory;

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("This was built without instrumentation: tests/fuzz/run builds and runs the fuzz targets.");
    std::process::exit(2);
}

#[cfg(fuzzing)]
mod fuzzer {
    use super::memory;
    use libfuzzer_sys::fuzz_target;
    use pinfold::fuzz::{seeds, Target, TARGETS};
    use std::path::PathBuf;
    use std::sync::OnceLock;

    #[global_allocator]
    static ALLOCATOR: memory::Counting = memory::Counting;

    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

    /// Swallows what is logged after it was formatted: formatting is part of what ships.
    struct Formatted;

    impl log::Log for Formatted {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            std::hint::black_box(record.args().to_string());
        }
        fn flush(&self) {}
    }

    fn write_seeds() -> std::io::Result<()> {
        let base = std::env::var_os("PINFOLD_FUZZ_SEEDS").map(PathBuf::from).unwrap_or_default();
        for target in TARGETS {
            let folder = base.join(target.name);
            std::fs::create_dir_all(&folder)?;
            for (n, seed) in seeds(target.name).into_iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{n:02}")), &seed)?;
            }
        }
        Ok(())
    }

    fn choose() {
        let name = std::env::var("PINFOLD_FUZZ").unwrap_or_default();
        if name == "list" {
            for target in TARGETS {
                println!("{} {}", target.name, target.max_len);
            }
            std::process::exit(0);
        }
        if name == "seeds" {
            write_seeds().expect("the seeds are written");
            std::process::exit(0);
        }
        let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
            eprintln!("PINFOLD_FUZZ names no target ({name:?}); `list` lists them");
            std::process::exit(2);
        };
        let _ = CHOSEN.set(target);
        let _ = log::set_logger(&Formatted);
        log::set_max_level(log::LevelFilter::Debug);
        // What is made once and kept (threads, tables) is not the first input's fault.
        (target.run)(&[]);
    }

    fuzz_target!(init: choose(), |data: &[u8]| {
        let Some(target) = CHOSEN.get() else { return };
        let start = memory::start();
        (target.run)(data);
        let (peak, allowed) = (memory::peak_since(start), target.allowed(data.len()));
        assert!(
            peak <= allowed,
            "{} bytes of input made the process hold {peak} bytes more; {allowed} are allowed",
            data.len()
        );
    });
}
