//! Datagrams of gossip: sealed by whoever sends them, opened by whoever has the same key.
//!
//! ```text
//! offset  0  magic      "bltg"
//!         4  version    1
//!         5  key        4 bytes that tell keys apart
//!         9  boot       u64, random at each start of the sender
//!        17  sequence   u64, one more for each datagram
//!        25  clock      u64, the sender's Unix time in milliseconds
//!        33  payload
//!   end−16  tag        the first 16 bytes of HMAC-SHA256 over all before it
//! ```
//!
//! Numbers are big-endian. There is no length but the datagram's own, so none can lie.

use subtle::ConstantTimeEq;

use super::keys::{ID_LENGTH, Key};
use super::replay::Replay;

/// The most that a datagram of IPv4 carries.
pub(crate) const MAX_DATAGRAM: usize = 65_507;

const MAGIC: [u8; 4] = *b"bltg";
const VERSION: u8 = 1;
const HEADER: usize = MAGIC.len() + 1 + ID_LENGTH + 3 * 8;
const TAG: usize = 16;

/// How far a sender's clock may be from this node's. As long, a datagram could be replayed to a
/// node that has just started and so has not seen it.
pub(crate) const MAX_SKEW_MS: u64 = 60_000;

/// Senders whose sequences are kept; [`MAX_SKEW_MS`] bounds what becomes of those forgotten.
const MAX_BOOTS: usize = 4096;

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// Too short to be one.
    TooShort,
    /// Longer than any that is sent.
    TooLong,
    /// Something else, or of another format.
    BadMagic,
    /// Made with another key, or changed on its way.
    BadTag,
    /// This node's own.
    Own,
    /// The sender's clock or the datagram is off by so many milliseconds.
    Stale { sender_ms: u64 },
    /// Seen before.
    Replayed,
}

/// A payload that does not fit into a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Makes datagrams.
#[derive(Debug)]
pub(crate) struct Sealer {
    key: Key,
    boot: u64,
    sequence: u64,
}

impl Sealer {
    pub(crate) fn new(key: Key, boot: u64) -> Self {
        Self { key, boot, sequence: 0 }
    }

    /// Leaves one datagram in `datagram`, with what `payload` appends to it.
    pub(crate) fn seal(
        &mut self,
        now_ms: u64,
        datagram: &mut Vec<u8>,
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TooLong> {
        self.sequence += 1;
        datagram.clear();
        datagram.extend_from_slice(&MAGIC);
        datagram.push(VERSION);
        datagram.extend_from_slice(&self.key.id());
        for number in [self.boot, self.sequence, now_ms] {
            datagram.extend_from_slice(&number.to_be_bytes());
        }
        payload(datagram);
        if datagram.len() + TAG > MAX_DATAGRAM {
            return Err(TooLong);
        }
        let tag = self.key.tag(datagram);
        datagram.extend_from_slice(&tag.as_ref()[..TAG]);
        Ok(())
    }
}

/// Lets through what was sealed with the same key, once, and not long ago.
#[derive(Debug)]
pub(crate) struct Opener {
    key: Key,
    own_boot: u64,
    replay: Replay,
}

impl Opener {
    /// `own_boot` is that of the sealer beside it.
    pub(crate) fn new(key: Key, own_boot: u64) -> Self {
        Self { key, own_boot, replay: Replay::new(MAX_BOOTS) }
    }

    /// The payload. Nothing is remembered of a datagram that is refused.
    pub(crate) fn open<'a>(
        &mut self,
        now_ms: u64,
        datagram: &'a [u8],
    ) -> Result<&'a [u8], Refusal> {
        if datagram.len() < HEADER + TAG {
            return Err(Refusal::TooShort);
        }
        if datagram.len() > MAX_DATAGRAM {
            return Err(Refusal::TooLong);
        }
        let (sealed, tag) = datagram.split_at(datagram.len() - TAG);
        let (header, payload) = sealed.split_at(HEADER);
        let (magic, header) = header.split_at(MAGIC.len());
        let (version, header) = header.split_at(1);
        let (id, numbers) = header.split_at(ID_LENGTH);
        if magic != MAGIC || version != [VERSION] {
            return Err(Refusal::BadMagic);
        }
        // The id is public: it spares the hashing, and decides nothing that the tag does not.
        if id != self.key.id() {
            return Err(Refusal::BadTag);
        }
        let expected = self.key.tag(sealed);
        if !bool::from(expected.as_ref()[..TAG].ct_eq(tag)) {
            return Err(Refusal::BadTag);
        }
        let (boot, sequence, sender_ms) =
            (number(numbers, 0), number(numbers, 1), number(numbers, 2));
        if boot == self.own_boot {
            return Err(Refusal::Own);
        }
        if sender_ms.abs_diff(now_ms) > MAX_SKEW_MS {
            return Err(Refusal::Stale { sender_ms });
        }
        if !self.replay.is_new(boot, sequence, now_ms) {
            return Err(Refusal::Replayed);
        }
        Ok(payload)
    }
}

/// The number at this place of the header.
fn number(numbers: &[u8], place: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&numbers[place * 8..place * 8 + 8]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn sealer(token: &str) -> Sealer {
        Sealer::new(Key::new(Some(token), "balter"), 1)
    }

    fn opener(token: &str) -> Opener {
        Opener::new(Key::new(Some(token), "balter"), 2)
    }

    fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        let sealed = sealer.seal(NOW, &mut datagram, |out| out.extend_from_slice(payload));
        sealed.expect("it fits");
        datagram
    }

    #[test]
    fn what_was_sealed_opens_once() {
        let (mut sealer, mut opener) = (sealer("token"), opener("token"));
        let one = sealed(&mut sealer, b"one");
        let two = sealed(&mut sealer, b"");
        assert_eq!(opener.open(NOW, &two), Ok(&b""[..]));
        assert_eq!(opener.open(NOW, &one), Ok(&b"one"[..]), "out of order");
        assert_eq!(opener.open(NOW, &one), Err(Refusal::Replayed));
        assert_eq!(opener.open(NOW, &two), Err(Refusal::Replayed));
    }

    /// The format as it stands in the module's documentation: nodes of one version understand each
    /// other, whatever built them.
    #[test]
    fn the_bytes_are_those_of_the_page() {
        let datagram = sealed(&mut sealer("token"), b"payload");
        assert_eq!(datagram.len(), 33 + 7 + 16);
        assert_eq!(datagram[..5], *b"bltg\x01");
        assert_eq!(datagram[9..17], 1u64.to_be_bytes());
        assert_eq!(datagram[17..25], 1u64.to_be_bytes());
        assert_eq!(datagram[25..33], NOW.to_be_bytes());
        assert_eq!(datagram[33..40], *b"payload");
    }

    #[test]
    fn another_key_is_refused_even_under_the_same_id() {
        let mut datagram = sealed(&mut sealer("token"), b"payload");
        assert_eq!(opener("other").open(NOW, &datagram), Err(Refusal::BadTag));
        let id = Key::new(Some("other"), "balter").id();
        datagram[5..9].copy_from_slice(&id);
        assert_eq!(opener("other").open(NOW, &datagram), Err(Refusal::BadTag));
    }

    #[test]
    fn lengths_are_bounded_on_both_sides() {
        let (mut sealer, mut opener) = (sealer("token"), opener("token"));
        let mut datagram = Vec::new();
        let most = MAX_DATAGRAM - HEADER - TAG;
        let mut seal =
            |length| sealer.seal(NOW, &mut datagram, |out| out.resize(HEADER + length, 7));
        assert_eq!(seal(most + 1), Err(TooLong));
        assert_eq!(seal(most), Ok(()));
        assert_eq!(datagram.len(), MAX_DATAGRAM);
        assert_eq!(opener.open(NOW, &datagram), Ok(&[7; MAX_DATAGRAM][..most]));
        datagram.push(0);
        assert_eq!(opener.open(NOW, &datagram), Err(Refusal::TooLong));
        assert_eq!(opener.open(NOW, &datagram[..HEADER + TAG - 1]), Err(Refusal::TooShort));
        assert_eq!(opener.open(NOW, b""), Err(Refusal::TooShort));
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        for (at, fresh) in [
            (NOW - MAX_SKEW_MS - 1, false),
            (NOW - MAX_SKEW_MS, true),
            (NOW + MAX_SKEW_MS, true),
            (NOW + MAX_SKEW_MS + 1, false),
            (0, false),
            (u64::MAX, false),
        ] {
            let datagram = sealed(&mut sealer("token"), b"payload");
            let stale = Err(Refusal::Stale { sender_ms: NOW });
            let expected = if fresh { Ok(&b"payload"[..]) } else { stale };
            assert_eq!(opener("token").open(at, &datagram), expected, "{at}");
        }
    }

    #[test]
    fn nothing_is_remembered_of_what_is_refused() {
        let mut opener = opener("token");
        let datagram = sealed(&mut sealer("token"), b"payload");
        let mut changed = datagram.clone();
        changed[40] ^= 1;
        assert_eq!(opener.open(NOW, &changed), Err(Refusal::BadTag));
        assert!(opener.open(NOW + MAX_SKEW_MS + 1, &datagram).is_err());
        assert_eq!(opener.open(NOW, &datagram), Ok(&b"payload"[..]));
    }

    #[test]
    fn a_node_does_not_hear_itself() {
        let mut opener = Opener::new(Key::new(Some("token"), "balter"), 1);
        let datagram = sealed(&mut sealer("token"), b"payload");
        assert_eq!(opener.open(NOW, &datagram), Err(Refusal::Own));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), now: u64) {
            prop_assert!(opener("token").open(now, &bytes).is_err());
        }

        #[test]
        fn no_bytes_behind_a_good_header_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            now: u64,
        ) {
            let mut datagram = sealed(&mut sealer("token"), b"");
            datagram.truncate(HEADER);
            datagram.extend_from_slice(&bytes);
            prop_assert!(opener("token").open(now, &datagram).is_err());
        }

        #[test]
        fn one_flipped_bit_is_refused(
            payload in prop::collection::vec(any::<u8>(), 0..100),
            bit: prop::sample::Index,
        ) {
            let mut datagram = sealed(&mut sealer("token"), &payload);
            let bit = bit.index(datagram.len() * 8);
            datagram[bit / 8] ^= 1 << (bit % 8);
            let refused = opener("token").open(NOW, &datagram);
            let expected = if bit / 8 < 5 { Refusal::BadMagic } else { Refusal::BadTag };
            prop_assert_eq!(refused, Err(expected));
        }

        #[test]
        fn a_part_is_refused(
            payload in prop::collection::vec(any::<u8>(), 0..100),
            cut: prop::sample::Index,
        ) {
            let datagram = sealed(&mut sealer("token"), &payload);
            let part = &datagram[..cut.index(datagram.len())];
            prop_assert!(opener("token").open(NOW, part).is_err());
        }

        #[test]
        fn payloads_arrive_as_they_were(payload in prop::collection::vec(any::<u8>(), 0..5000)) {
            let datagram = sealed(&mut sealer("token"), &payload);
            let mut opener = opener("token");
            prop_assert_eq!(opener.open(NOW, &datagram), Ok(&payload[..]));
        }
    }
}
