//! Crash images: what a power cut may leave on the disk, at any moment of a workload, is opened again by the code that
//! ships, and everything that was acknowledged must be there (`tests/support/images`).
//!
//! `PINFOLD_IMAGES=N` builds about so many images; the usual number takes some seconds. `PINFOLD_IMAGES_SEED` sets the
//! first seed (printed), `PINFOLD_IMAGES_ONLY=point.variant` looks at one image only.

#[path = "support/images/mod.rs"]
mod images;
mod support;

use images::search::{Failure, Report};

/// Images when nobody asks for another number.
const USUAL: u64 = 5_000;
/// Images of one workload; then comes the next seed.
const PER_SEED: u64 = 6_000;
/// Few moments of a workload have few images: then not more seeds than one for so many wanted.
const LEAST: u64 = 150;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn wanted() -> u64 {
    number("PINFOLD_IMAGES").unwrap_or(USUAL)
}

fn seed() -> u64 {
    number("PINFOLD_IMAGES_SEED").unwrap_or(1)
}

fn only() -> Option<(usize, usize)> {
    let text = std::env::var("PINFOLD_IMAGES_ONLY").ok()?;
    let (point, variant) = text.split_once('.')?;
    Some((point.parse().ok()?, variant.parse().ok()?))
}

/// Searches one seed after the other until `share` percent of the wanted images were seen.
fn search(
    name: &str,
    share: u64,
    run: impl Fn(u64, u64, Option<(usize, usize)>) -> Result<Report, Box<Failure>>,
) {
    let goal = wanted() * share / 100;
    let mut sum = Report::default();
    let mut seed = seed();
    let last = seed + 1 + goal / LEAST;
    println!("{name}: {goal} images from seed {seed} on");
    while sum.images < goal && seed < last {
        match run(seed, PER_SEED.min(goal - sum.images).max(300), only()) {
            Ok(report) => {
                println!("{name}, seed {seed}: {report}");
                sum.add(&report);
            }
            Err(failure) => panic!("after {} images: {}", sum.images + failure.after, failure.message),
        }
        if only().is_some() {
            return;
        }
        seed += 1;
    }
    println!("{name}: {sum}");
    assert!(sum.images > 20 && sum.images * 4 > goal, "{name}: too few images: {sum}");
    if goal < 1_000 || share < 10 {
        return;
    }
    for (kind, n) in ["prefixes", "subsets", "torn", "lengths", "names"].iter().zip(sum.kinds) {
        assert!(n > 0, "{name}: no image was of the kind {kind}");
    }
}

#[test]
#[ignore = "the workload that the tests record"]
fn child_store() {
    images::store::child();
}

#[test]
fn log_and_state_keep_what_they_acknowledged() {
    search("log and state", 40, images::store::search);
}

#[test]
#[ignore = "the workload that the tests record"]
fn child_node() {
    images::node::child();
}

#[test]
fn blocks_and_pins_keep_what_they_acknowledged() {
    search("blocks and pins", 55, images::node::search);
}

#[test]
#[ignore = "the sweep's child"]
fn child_sweep_store() {
    images::sweep::child_store();
}

#[test]
#[ignore = "the sweep's child"]
fn child_sweep_node() {
    images::sweep::child_node();
}

/// Sweeps more thoroughly when many images are wanted.
fn sweep(name: &str) {
    let stride = if wanted() > USUAL { 1 } else { 7 };
    let swept = images::sweep::run(name, seed(), stride).unwrap_or_else(|why| panic!("{why}"));
    println!("{name}: {} runs with {} failures, {} of them told", swept.runs, swept.failed, swept.errors);
    assert!(swept.runs > 20 && swept.errors > 10, "too quiet: {swept:?}");
}

#[test]
fn an_error_of_the_disk_costs_log_and_state_nothing_acknowledged() {
    sweep("child_sweep_store");
}

#[test]
fn an_error_of_the_disk_costs_blocks_and_pins_nothing_acknowledged() {
    sweep("child_sweep_node");
}

#[test]
#[ignore = "the workload that the tests record"]
fn child_files() {
    images::files::child();
}

#[test]
#[ignore = "the workload that the tests record"]
fn child_upgrade() {
    images::files::child_upgrade();
}

#[test]
fn configuration_identity_imports_and_backups_are_old_or_new() {
    search("files", 3, images::files::search);
}

#[test]
fn an_upgrade_is_old_or_new() {
    search("upgrade", 2, images::files::search_upgrade);
}
