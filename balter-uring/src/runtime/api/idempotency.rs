//! Requests that come twice.

use std::collections::VecDeque;
use std::sync::Mutex;

use ring::digest::{SHA256, digest};

/// Keys that are remembered; the oldest are forgotten.
const REMEMBERED: usize = 1024;

/// The runs that were started under a key.
#[derive(Default)]
pub(super) struct Idempotency(Mutex<VecDeque<Started>>);

struct Started {
    key: String,
    body: Vec<u8>,
    id: String,
}

/// What was under a key before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Before {
    New,
    /// The same request, which started this run.
    Same(String),
    /// Another request.
    Other,
}

impl Idempotency {
    pub(super) fn before(&self, key: &str, body: &[u8]) -> Before {
        let started = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match started.iter().find(|started| started.key == key) {
            None => Before::New,
            Some(started) if started.body == digest(&SHA256, body).as_ref() => {
                Before::Same(started.id.clone())
            }
            Some(_) => Before::Other,
        }
    }

    pub(super) fn remember(&self, key: String, body: &[u8], id: String) {
        let mut started = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if started.len() == REMEMBERED {
            started.pop_front();
        }
        started.push_back(Started { key, body: digest(&SHA256, body).as_ref().to_vec(), id });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_for_one_request() {
        let keys = Idempotency::default();
        assert_eq!(keys.before("k", b"one"), Before::New);
        keys.remember("k".to_owned(), b"one", "7".to_owned());
        assert_eq!(keys.before("k", b"one"), Before::Same("7".to_owned()));
        assert_eq!(keys.before("k", b"two"), Before::Other);
        for number in 0..REMEMBERED {
            keys.remember(number.to_string(), b"", String::new());
        }
        assert_eq!(keys.before("k", b"one"), Before::New);
    }
}
