//! Early face of the simulator's runner.
use pinfold::sim::{self, Knobs};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        args.iter().position(|a| a == name).and_then(|n| args.get(n + 1)).and_then(|v| v.parse::<u64>().ok())
    };
    let (first, seeds) = (value("--first").unwrap_or(1), value("--seeds").unwrap_or(20));
    let (mut good, mut bad) = (0, 0);
    for seed in first..first + seeds {
        match sim::run(seed, &Knobs::draw(seed)) {
            Ok(_) => good += 1,
            Err(failure) => {
                bad += 1;
                println!("{failure}");
            }
        }
    }
    println!(
        "test result: {}. {good} passed; {bad} failed; 0 ignored; 0 measured; 0 filtered out",
        if bad == 0 { "ok" } else { "FAILED" }
    );
    assert!(bad == 0);
}
