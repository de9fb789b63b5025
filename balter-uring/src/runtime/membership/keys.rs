//! The key that gossip is authenticated with.

use ring::{hkdf, hmac};

/// Names the format; another format gets another one, and so other keys.
const LABEL: &[u8] = b"balter gossip v1";
const LABEL_OF_ID: &[u8] = b"balter gossip v1 key id";

/// What a cluster without a token uses. It proves nothing; it keeps accidental traffic out.
const WELL_KNOWN: &[u8] = b"no token";

/// Bytes of [`Key::id`].
pub(crate) const ID_LENGTH: usize = 4;

/// Made of the token and of the cluster's name, so that the nodes of two clusters do not hear each
/// other although they have one token.
#[derive(Clone)]
pub(crate) struct Key {
    mac: hmac::Key,
    id: [u8; ID_LENGTH],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

impl Key {
    /// `None` is the key that every node of a cluster without a token has.
    pub(crate) fn new(token: Option<&str>, cluster: &str) -> Self {
        // The salt keeps a token that spells the well-known secret apart from having none.
        let (salt, secret): (&[u8], _) = match token {
            Some(token) => (b"token", token.as_bytes()),
            None => (b"none", WELL_KNOWN),
        };
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
        let about = [LABEL, cluster.as_bytes()];
        let mac = secret.expand(&about, hmac::HMAC_SHA256).expect("as long as a hash").into();
        let about = [LABEL_OF_ID, cluster.as_bytes()];
        let mut id = [0; ID_LENGTH];
        let expanded = secret.expand(&about, Length(ID_LENGTH)).expect("shorter than a hash");
        expanded.fill(&mut id).expect("the length that was asked for");
        Self { mac, id }
    }

    /// Tells keys apart before anything is computed. No secret, and no proof.
    pub(crate) fn id(&self) -> [u8; ID_LENGTH] {
        self.id
    }

    /// HMAC-SHA256 of the bytes.
    pub(crate) fn tag(&self, bytes: &[u8]) -> hmac::Tag {
        hmac::sign(&self.mac, bytes)
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_the_token_and_on_the_cluster() {
        let tokens = [None, Some("no token"), Some("token"), Some("Token")];
        let keys: Vec<_> = tokens
            .iter()
            .flat_map(|&token| ["balter", "other"].map(|cluster| Key::new(token, cluster)))
            .collect();
        for (one, key) in keys.iter().enumerate() {
            for (two, other) in keys.iter().enumerate() {
                let same = key.tag(b"bytes").as_ref() == other.tag(b"bytes").as_ref();
                assert_eq!(same, one == two, "{one} {two}");
                assert_eq!(key.id() == other.id(), one == two, "{one} {two}");
            }
        }
        let again = Key::new(Some("token"), "balter");
        assert_eq!(again.tag(b"bytes").as_ref(), keys[4].tag(b"bytes").as_ref());
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", Key::new(Some("secret"), "balter")), "Key { .. }");
    }
}
