//! Datagrams of gossip, from senders with the key and from others: no panic, what was sealed opens
//! once and unchanged, and nothing else opens at all.
//!
//! `cargo +nightly fuzz run gossip corpus/gossip seeds/gossip` searches;
//! `cargo run --bin gossip -- seeds/gossip/*` runs what is there, on any toolchain.
//!
//! An input is a list of steps: what to do, a number, a length, and so many bytes.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use membership::frame::{MAX_SKEW_MS, Opener, Refusal, Sealer};
use membership::keys::Key;

// The sources themselves, so that neither glommio nor a public module is needed.
#[allow(dead_code, missing_docs, unused_imports)]
#[path = "../../balter-uring/src/runtime/membership"]
mod membership {
    pub mod frame;
    pub mod keys;
    pub mod replay;
}

const NOW: u64 = 1_700_000_000_000;
const OWN: u64 = 0;

static KEY: LazyLock<Key> = LazyLock::new(|| Key::new(Some("token"), "balter"));

fuzz_target!(|input: &[u8]| {
    let mut opener = Opener::new(KEY.clone(), OWN);
    let mut senders = [1, 2, OWN].map(|boot| Sealer::new(KEY.clone(), boot));
    let mut stranger = Sealer::new(Key::new(None, "balter"), 3);
    let mut datagram = Vec::new();
    let mut rest = input;
    while let [step, high, low, length, after @ ..] = rest {
        let number = u16::from_be_bytes([*high, *low]);
        let (bytes, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        let payload = |out: &mut Vec<u8>| out.extend_from_slice(bytes);
        // Up to 131 s off, to either side.
        let at = (NOW - 131_072) + u64::from(number) * 4;
        let sender = usize::from(step / 8 % 3);
        match step % 8 {
            // As a stranger sends it.
            0 => assert!(opener.open(NOW, bytes).is_err(), "no datagram was sealed"),
            1 => {
                stranger.seal(NOW, &mut datagram, payload).expect("it fits");
                assert_eq!(opener.open(NOW, &datagram), Err(Refusal::BadTag));
            }
            // Changed on its way.
            2 => {
                senders[sender].seal(NOW, &mut datagram, payload).expect("it fits");
                let bit = usize::from(number) % (datagram.len() * 8);
                datagram[bit / 8] ^= 1 << (bit % 8);
                let changed = opener.open(NOW, &datagram);
                assert!(matches!(changed, Err(Refusal::BadMagic | Refusal::BadTag)), "{changed:?}");
            }
            3 => {
                senders[sender].seal(NOW, &mut datagram, payload).expect("it fits");
                datagram.truncate(usize::from(number) % datagram.len());
                assert!(opener.open(NOW, &datagram).is_err(), "a part was opened");
            }
            4 => {
                senders[sender].seal(NOW, &mut datagram, payload).expect("it fits");
                datagram.extend_from_slice(&number.to_be_bytes());
                assert!(opener.open(NOW, &datagram).is_err(), "more than was sealed was opened");
            }
            // As it was sent, twice.
            _ => {
                senders[sender].seal(at, &mut datagram, payload).expect("it fits");
                let (first, again) = if sender == 2 {
                    (Err(Refusal::Own), Refusal::Own)
                } else if at.abs_diff(NOW) > MAX_SKEW_MS {
                    (Err(Refusal::Stale { sender_ms: at }), Refusal::Stale { sender_ms: at })
                } else {
                    (Ok(bytes), Refusal::Replayed)
                };
                assert_eq!(opener.open(NOW, &datagram), first);
                assert_eq!(opener.open(NOW, &datagram), Err(again));
            }
        }
    }
});
