//! Runs the property on damaged patches: `mutate [ROUNDS] [SEED]`.

use std::process::ExitCode;

use whimbrel_protocol_fuzz::mutator::Mutator;
use whimbrel_protocol_fuzz::{End, patch};

const PATCHES: [&[u8]; 2] =
    [include_bytes!("../../vectors/patch/small.patch"), include_bytes!("../../vectors/patch/medium.patch")];

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let (rounds, seed) = match (numbers.next().unwrap_or(Ok(100_000)), numbers.next().unwrap_or(Ok(1))) {
        (Ok(rounds), Ok(seed)) => (rounds, seed),
        _ => {
            eprintln!("usage: mutate [ROUNDS] [SEED]");
            return ExitCode::from(2);
        }
    };
    let mut mutator = Mutator::new(seed);
    let (mut refused, mut images, mut long, mut errors) = (0_u64, 0_u64, 0_u64, 0_u64);
    for round in 0..rounds {
        let data = mutator.data(&PATCHES);
        match std::panic::catch_unwind(|| patch(&data)) {
            Ok(End::Refused) => refused += 1,
            Ok(End::Image) => images += 1,
            Ok(End::Long) => long += 1,
            Ok(End::Error(_)) => errors += 1,
            Err(_) => {
                eprintln!("round {round} of seed {seed}: the property does not hold");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{rounds} damaged patches: {errors} named errors, {images} images of other content, {long} cut off, {refused} refused by their header"
    );
    ExitCode::SUCCESS
}
