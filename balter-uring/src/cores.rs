//! Which cores the shards may have.

use std::env::{VarError, var};

use rustix::process::getpid;
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::preflight::PreflightError;

/// The environment's word on it: `BALTER_CORES=1,3-5`.
const VARIABLE: &str = "BALTER_CORES";

/// Cores that this process may use, in ascending order: those of its main thread, and of the
/// thread that asks. That one alone may be pinned for reasons of its own, as the threads of
/// glommio's executors are; the shards are not bound by it.
pub(crate) fn allowed() -> Vec<usize> {
    let sets: Vec<_> = [Some(getpid()), None].into_iter().flat_map(sched_getaffinity).collect();
    (0..CpuSet::MAX_CPU).filter(|&core| sets.iter().any(|set| set.is_set(core))).collect()
}

/// The cores for a run: those asked for by the builder, else those of `BALTER_CORES`, else all
/// that are allowed and not `taken`.
///
/// # Errors
/// When a core is not allowed, the list cannot be read, or none is left.
pub(crate) fn choose(
    asked: Option<&[usize]>,
    allowed: &[usize],
    taken: &[usize],
) -> Result<Vec<usize>, PreflightError> {
    let mut cores = match (asked, var(VARIABLE)) {
        (Some(cores), _) => cores.to_vec(),
        (None, Ok(text)) if !text.trim().is_empty() => parse(&text)?,
        (None, Err(VarError::NotUnicode(text))) => {
            let text = text.to_string_lossy().into_owned();
            return Err(PreflightError::CoreList { text, origin: VARIABLE.to_owned() });
        }
        (None, _) => {
            allowed.iter().copied().filter(|core| !taken.contains(core)).collect::<Vec<_>>()
        }
    };
    // A core has one shard however often it is named.
    cores.sort_unstable();
    cores.dedup();
    if let Some(&core) = cores.iter().find(|core| !allowed.contains(core)) {
        return Err(PreflightError::CoreNotAllowed { core, allowed: list(allowed) });
    }
    if cores.is_empty() {
        return Err(PreflightError::NoCores { allowed: list(allowed) });
    }
    Ok(cores)
}

fn parse(text: &str) -> Result<Vec<usize>, PreflightError> {
    let error = || PreflightError::CoreList { text: text.to_owned(), origin: VARIABLE.to_owned() };
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| error());
    let mut cores = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => cores.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                // Bounded, so that a slip of the keyboard does not fill the memory.
                if first > last || last > 1 << 16 {
                    return Err(error());
                }
                cores.extend(first..=last);
            }
        }
    }
    Ok(cores)
}

/// `0-3,5`.
pub(crate) fn list(cores: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => parts.push((core, core)),
        }
    }
    let parts: Vec<_> = parts
        .into_iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cores_is_read_and_written() {
        assert_eq!(parse("1,3-5"), Ok(vec![1, 3, 4, 5]));
        assert_eq!(parse(" 2 "), Ok(vec![2]));
        assert_eq!(list(&[0, 1, 2, 5]), "0-2,5");
    }

    #[test]
    fn nonsense_is_an_error_that_shows_it() {
        for text in ["", "a", "3-1", "1,,2", "0-99999999999", "-"] {
            assert!(matches!(parse(text), Err(PreflightError::CoreList { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_core_that_is_not_allowed_is_refused() {
        let error = choose(Some(&[7]), &[0, 1], &[]).expect_err("core 7 is not allowed");
        assert_eq!(error, PreflightError::CoreNotAllowed { core: 7, allowed: "0-1".to_owned() });
    }

    #[test]
    fn a_core_named_twice_has_one_shard() {
        assert_eq!(choose(Some(&[1, 1]), &[0, 1], &[]), Ok(vec![1]));
    }
}
