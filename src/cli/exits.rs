//! The exit codes, what they mean, and after which of them a service manager may start the peer again.
//!
//! The codes themselves come from [`crate::Kind::exit_code`] and [`super::failure::Failure::exit_code`]; tests hold this
//! table against both, and the units of `systemd/` against this table.

/// One exit code of `pinfold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The code.
    pub code: u8,
    /// What it means.
    pub meaning: &'static str,
    /// Whether a daemon that ended with it may start again by itself. Otherwise only a person can help, and starting
    /// again would be a loop.
    pub again: bool,
}

const fn exit(code: u8, again: bool, meaning: &'static str) -> Exit {
    Exit { code, meaning, again }
}

/// All of them, in order.
pub const EXITS: &[Exit] = &[
    exit(0, true, "Done; a peer was stopped by a signal and came to a clean end."),
    exit(
        1,
        true,
        "Something was found wrong before a request was made, the API could not be reached, or what was looked at is not as it should be and the output says so (doctor, pin import).",
    ),
    exit(2, false, "The command line or the configuration is wrong; a command for the API: the API answered with an error."),
    exit(3, false, "Access was refused: another secret, wrong credentials; or there is no such command."),
    exit(4, false, "Something that was named is not there."),
    exit(
        5,
        false,
        "It contradicts what is: the folder is in use by another process, the peer was removed from its cluster, other data is in the way.",
    ),
    exit(6, true, "No majority, no leader, nobody who could be joined: later it may work."),
    exit(7, true, "A limit of time passed."),
    exit(8, false, "Something is larger than it may ever be."),
    exit(9, true, "The disk is full."),
    exit(10, false, "Data on disk is damaged; `pinfold state check` says what to do."),
    exit(11, true, "The operating system refused: a disk that is gone, a port that is taken."),
    exit(12, true, "The IPFS node refused or answered nonsense."),
    exit(13, false, "The data is of a newer pinfold, or of an older one and needs `pinfold state upgrade`."),
    exit(62, true, "The deadline of --timeout passed."),
    exit(70, true, "A defect of pinfold itself."),
    exit(125, true, "The request was cancelled."),
    exit(141, true, "Whoever read the output went away."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::ErrorBody;
    use crate::cli::face::Face;
    use crate::cli::failure::Failure;
    use crate::error::{Error, Kind};

    /// Every kind: a new one must be put in here for this to compile.
    fn kinds() -> Vec<Kind> {
        use Kind::*;
        let next = |kind| match kind {
            Invalid => Some(Unauthorized),
            Unauthorized => Some(Forbidden),
            Forbidden => Some(NotFound),
            NotFound => Some(Conflict),
            Conflict => Some(NotLeader),
            NotLeader => Some(Unavailable),
            Unavailable => Some(Timeout),
            Timeout => Some(TooLarge),
            TooLarge => Some(Full),
            Full => Some(Corrupt),
            Corrupt => Some(Io),
            Io => Some(Ipfs),
            Ipfs => Some(Cancelled),
            Cancelled => Some(Version),
            Version => Some(Internal),
            Internal => None,
        };
        std::iter::successors(Some(Invalid), |kind| next(*kind)).collect()
    }

    #[test]
    fn the_table_has_every_code_that_the_program_ends_with_and_no_other() {
        let mut codes: Vec<u8> = kinds().into_iter().map(Kind::exit_code).collect();
        let body = ErrorBody { code: 0, message: String::new() };
        let words = String::new;
        let failures = [
            Failure::Usage(words()),
            Failure::Argument(words(), words()),
            Failure::Api(body),
            Failure::Transport(words()),
            Failure::Deadline(words()),
            Failure::Local(Error::new(Kind::Cancelled, "x")),
            Failure::Found,
            Failure::Pipe,
        ];
        codes.extend(failures.iter().map(|f| f.exit_code(Face::Pinfold)));
        codes.extend([0, crate::cli::EXIT_NO_TOPIC]);
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(EXITS.iter().map(|exit| exit.code).collect::<Vec<_>>(), codes);
    }

    #[test]
    fn the_units_start_again_after_exactly_the_codes_that_the_table_says() {
        let helpless: Vec<String> =
            EXITS.iter().filter(|exit| !exit.again).map(|exit| exit.code.to_string()).collect();
        for unit in
            [include_str!("../../systemd/pinfold.service"), include_str!("../../systemd/pinfold@.service")]
        {
            let named: Vec<&str> = unit
                .lines()
                .filter_map(|line| line.strip_prefix("RestartPreventExitStatus="))
                .flat_map(str::split_whitespace)
                .collect();
            assert_eq!(named, helpless);
            assert!(unit.lines().any(|line| line == "Restart=always"));
            // HUP means stop: a reload would end the peer.
            assert!(!unit.lines().any(|line| line.starts_with("ExecReload=")));
        }
    }
}
