//! The 64 bits that travel with an operation through the kernel and back.

/// What an operation was, so that its completion finds its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Recv = 1,
    Send = 2,
    Connect = 3,
    Accept = 4,
    /// A cancellation or a shutdown: whatever it answers, the operations it ends tell the rest.
    Cancel = 5,
    Close = 6,
    Wake = 7,
}

/// `kind (8 bits) | generation (24 bits) | slot (32 bits)`.
///
/// A slot is used again as soon as its socket is closed, so a completion that was already on its
/// way could reach the next owner. The generation, which every closing raises, tells them apart;
/// it wraps after 16 million uses of one slot, far more than can be in flight together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) generation: u32,
    pub(super) slot: u32,
}

pub(super) const GENERATION_MASK: u32 = (1 << 24) - 1;

impl Token {
    pub(super) fn encode(self) -> u64 {
        (self.kind as u64) << 56
            | u64::from(self.generation & GENERATION_MASK) << 32
            | u64::from(self.slot)
    }

    pub(super) fn decode(raw: u64) -> Option<Self> {
        let kind = match raw >> 56 {
            1 => Kind::Recv,
            2 => Kind::Send,
            3 => Kind::Connect,
            4 => Kind::Accept,
            5 => Kind::Cancel,
            6 => Kind::Close,
            7 => Kind::Wake,
            _ => return None,
        };
        Some(Self { kind, generation: (raw >> 32) as u32 & GENERATION_MASK, slot: raw as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_survives_the_trip_through_the_kernel() {
        for kind in [Kind::Recv, Kind::Send, Kind::Connect, Kind::Accept, Kind::Cancel, Kind::Close]
        {
            for generation in [0, 1, GENERATION_MASK] {
                for slot in [0, 7, u32::MAX] {
                    let token = Token { kind, generation, slot };
                    assert_eq!(Token::decode(token.encode()), Some(token));
                }
            }
        }
    }

    #[test]
    fn user_data_of_nobody_is_refused() {
        assert_eq!(Token::decode(0), None);
        assert_eq!(Token::decode(u64::MAX), None);
    }
}
