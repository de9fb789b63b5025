//! The address that the others reach a node at, where it listens on all of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The address that the kernel would use towards the first seed that it knows a way to, else
/// towards the rest of the world, else the first of this machine that is not loopback.
pub(super) fn find(listen: IpAddr, seeds: &[SocketAddr]) -> Option<IpAddr> {
    // Addresses that stand for "anywhere" (RFC 5737, RFC 3849): nothing is sent to them.
    let world: [SocketAddr; 2] = [
        (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
    ];
    let towards = seeds.iter().chain(&world).find_map(|to| towards(listen, *to));
    towards.or_else(|| of_machine(listen))
}

/// The source address of datagrams to there. Connecting a UDP socket sends nothing.
fn towards(listen: IpAddr, to: SocketAddr) -> Option<IpAddr> {
    let from: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        // A socket of IPv4 does not reach it.
        SocketAddr::V6(_) if listen.is_ipv4() => return None,
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect(to).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// The first address of this machine, as the kernel lists them.
fn of_machine(listen: IpAddr) -> Option<IpAddr> {
    let routes = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    if let Some(address) = first_local(&routes) {
        return Some(address.into());
    }
    if listen.is_ipv4() {
        return None;
    }
    let interfaces = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    first_global(&interfaces).map(IpAddr::from)
}

/// The first address in `/proc/net/fib_trie` that is marked as local and not loopback.
fn first_local(routes: &str) -> Option<Ipv4Addr> {
    let mut last = None;
    for line in routes.lines() {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.trim_end().parse::<Ipv4Addr>().ok();
        } else if let Some(address) = last.filter(|address| !address.is_loopback())
            && line.starts_with("/32 host LOCAL")
        {
            return Some(address);
        }
    }
    None
}

/// The first address in `/proc/net/if_inet6` of global scope.
fn first_global(interfaces: &str) -> Option<Ipv6Addr> {
    interfaces.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let scope = fields.nth(2)?;
        (scope == "00").then_some(Ipv6Addr::from(address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    #[test]
    fn towards_loopback_it_is_loopback() {
        let seed = "127.0.0.1:7621".parse().expect("an address");
        assert_eq!(find(ANY, &[seed]), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_seed_that_cannot_be_reached_is_passed_over() {
        let seeds = ["[::1]:1", "127.0.0.1:1"].map(|seed| seed.parse().expect("an address"));
        assert_eq!(find(ANY, &seeds), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn the_first_address_of_the_machine_is_read_from_the_routes() {
        let routes = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
           |-- 127.255.255.255
              /32 link BROADCAST
     +-- 172.17.0.0/16 2 0 2
           |-- 172.17.0.0
              /16 link UNICAST
           |-- 172.17.0.9
              /32 host LOCAL
";
        assert_eq!(first_local(routes), Some(Ipv4Addr::new(172, 17, 0, 9)));
        assert_eq!(first_local(&routes.replace("172.17.0.9", "nonsense")), None);
        assert_eq!(first_local(""), None);
    }

    #[test]
    fn the_first_global_address_is_read_from_the_interfaces() {
        let interfaces = "\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000042acfffe110009 02 40 20 80     eth0
fd000000000000000000000000000009 02 40 00 80     eth0
";
        let expected = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);
        assert_eq!(first_global(interfaces), Some(expected));
        assert_eq!(first_global("nonsense\n\n"), None);
    }
}
