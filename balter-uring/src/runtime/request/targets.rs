//! Addresses among the arguments of a request.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::RequestError;

/// Refuses arguments that hold what could be an address to load.
pub(super) fn refuse(value: &Value, field: &str) -> Result<(), RequestError> {
    match value {
        Value::String(text) if is_address(text) => {
            Err(RequestError::Target { field: field.to_owned(), value: text.clone() })
        }
        Value::Array(values) => values
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| refuse(value, &format!("{field}[{index}]"))),
        Value::Object(values) => values.iter().try_for_each(|(name, value)| {
            // A name can be one as well.
            refuse(&Value::String(name.clone()), field)?;
            refuse(value, &format!("{field}.{name}"))
        }),
        _ => Ok(()),
    }
}

/// Whether a text is a URL, an IP address, or a host with a port or with a dot in it. Better a
/// word too many than an address too few: `--allow-targets` is the way for those who want it.
fn is_address(text: &str) -> bool {
    let text = text.trim();
    if text.contains("://") || text.starts_with("//") {
        return true;
    }
    if text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    // Without a path, a query or a user's name.
    let host = text.split(['/', '?', '#']).next().unwrap_or(text);
    let host = host.rsplit('@').next().unwrap_or(host);
    let (host, port) =
        host.rsplit_once(':').map_or((host, None), |(host, port)| (host, Some(port)));
    let is_name = |host: &str| {
        !host.is_empty()
            && host.split('.').all(|label| {
                let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                !label.is_empty() && label.bytes().all(is_fit)
            })
    };
    match port {
        Some(port) => port.parse::<u16>().is_ok() && (is_name(host) || host.starts_with('[')),
        None => {
            let ends_in_letters = host
                .rsplit_once('.')
                .is_some_and(|(_, last)| last.bytes().all(|byte| byte.is_ascii_alphabetic()));
            host.eq_ignore_ascii_case("localhost") || (ends_in_letters && is_name(host))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_words() {
        let addresses = [
            "http://a/",
            "HTTPS://a.b",
            "//a/b",
            "10.0.0.1",
            "10.0.0.1:80",
            "::1",
            "[::1]:80",
            "db:5432",
            "a.example.com",
            "localhost",
            "LOCALHOST/x",
            "a.b.c:1/x?y",
            "user@host.com",
            " 10.0.0.1 ",
            "redis://x",
        ];
        for address in addresses {
            assert!(is_address(address), "{address}");
        }
        for word in ["", "GET", "/a/b", "1.5", "12:30:00", "hello world", "a b.c", "v1.2.3", "x=1"]
        {
            assert!(!is_address(word), "{word}");
        }
    }
}
