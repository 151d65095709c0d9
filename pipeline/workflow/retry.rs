//! Stages that fail are tried again as often as they say.

use super::Error;
use crate::observer::{Event, Observer};
use crate::units::with_causes;

/// Runs a stage, and up to `times` times again while it fails for a reason that may pass; a note says why.
pub(super) fn with_retries<T>(
    times: u32,
    observer: &dyn Observer,
    stage: &str,
    mut run: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut tried = 0;
    loop {
        match run() {
            Err(error) if tried < times && may_pass(&error) => {
                tried += 1;
                let message = format!("trying again ({tried} of {times}): {}", with_causes(&error));
                observer.event(&Event::Note { stage: Some(stage.to_owned()), message });
            }
            result => return result,
        }
    }
}

/// Whether another try may go better: not after a request to stop, nor where the workflow or genomill itself is at fault.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Stage { source, .. } => !source.is_configuration(),
        Error::Remote { .. } | Error::Artifact(_) | Error::Fs(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::stage;

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Observer for Notes {
        fn event(&self, event: &Event) {
            if let Event::Note { message, .. } = event {
                self.0.lock().unwrap().push(message.clone());
            }
        }
    }

    fn failed(source: stage::Error) -> Error {
        Error::Stage { stage: "a".to_owned(), source: Box::new(source) }
    }

    fn passing() -> Error {
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        failed(crate::fs::error("write", std::path::Path::new("x"))(source).into())
    }

    type Make = fn() -> Error;

    #[test]
    fn what_may_pass_is_tried_again() {
        let wrong: Make = || failed(stage::Error::Config { key: "k", reason: "r".to_owned() });
        let stopped: Make = || Error::Interrupted { stage: "a".to_owned() };
        // The retries allowed, the failures before it would succeed, how it fails; tries made, and whether it succeeds.
        for (times, failures, error, tries, good) in [
            (0, 0, passing as Make, 1, true),
            (0, 1, passing, 1, false),
            (2, 1, passing, 2, true),
            (2, 2, passing, 3, true),
            (2, 3, passing, 3, false),
            (2, 1, wrong, 1, false),
            (2, 1, stopped, 1, false),
        ] {
            let (notes, mut made) = (Notes::default(), 0);
            let result = with_retries(times, &notes, "a", || {
                made += 1;
                if made <= failures { Err(error()) } else { Ok(()) }
            });
            assert_eq!((made, result.is_ok()), (tries, good), "{times} {failures}");
            let notes = notes.0.into_inner().unwrap();
            assert_eq!(notes.len(), tries - 1, "{notes:?}");
            if let Some(note) = notes.first() {
                let expected = format!(
                    "trying again (1 of {times}): stage `a` failed: cannot write `x`: no storage space"
                );
                assert_eq!(*note, expected);
            }
        }
    }
}
