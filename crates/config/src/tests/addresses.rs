//! `listen:` and the entries of `servers:`.

use std::net::SocketAddr;

use super::*;

#[test]
fn listen_takes_tcp_addresses() {
    let at = |text: &str| match good(&listening(text)).pools.remove(0).listen {
        Listen::Tcp {
            host,
            port,
            address,
        } => (host, port, address),
        Listen::Unix { .. } => panic!("{text} is no path"),
    };
    let v4: SocketAddr = "127.0.0.1:22121".parse().unwrap();
    assert_eq!(at("127.0.0.1:22121"), ("127.0.0.1".to_owned(), 22121, v4));
    let v6: SocketAddr = "[::1]:22121".parse().unwrap();
    assert_eq!(at("::1:22121"), ("::1".to_owned(), 22121, v6));
    let (host, port, address) = at("localhost:65535");
    assert_eq!((host.as_str(), port), ("localhost", 65535));
    assert!(address.ip().is_loopback());
    let (host, port, address) = at("'*:22121'");
    assert_eq!((host.as_str(), port), ("*", 22121));
    assert!(address.ip().is_loopback());
    let all = addresses("*", 7).unwrap();
    assert!(
        all.iter()
            .all(|found| found.ip().is_loopback() && found.port() == 7)
    );
    assert!(all.contains(&"127.0.0.1:7".parse().unwrap()), "{all:?}");
}

#[test]
fn listen_takes_unix_paths() {
    let longest = format!("/{}", "x".repeat(106));
    for (text, path, mode) in [
        ("/a/b.sock", "/a/b.sock", None),
        ("/a/b.sock 0666", "/a/b.sock", Some(0o666)),
        ("/a/b.sock 777", "/a/b.sock", Some(0o777)),
        ("/a b 0600", "/a b", Some(0o600)),
        ("/a 0", "/a", None),
        ("/a +7", "/a", Some(7)),
        ("'/a '", "/a", None),
        ("/a:1:2", "/a:1:2", None),
        (longest.as_str(), longest.as_str(), None),
    ] {
        let listen = good(&listening(text)).pools.remove(0).listen;
        let path = PathBuf::from(path);
        assert_eq!(listen, Listen::Unix { path, mode }, "{text}");
    }
}

// D40
#[test]
fn listen_is_refused_in_the_words_of_nutcracker() {
    let port = "has an invalid port in \"hostname:port\" format string";
    let mode = "has an invalid file permission in \"socket_path permission\" format string";
    for (text, reason) in [
        ("22121", "has an invalid \"hostname:port\" format string"),
        ("h:0", port),
        ("h:65536", port),
        ("h:70000", port),
        ("h:x", port),
        ("h:-1", port),
        ("'h:'", port),
        ("h:4294989417", port),
        ("/a 01000", mode),
        ("/a 7777777777777777777777777", mode),
        ("/a -1", mode),
        ("/a 0999", mode),
        ("/a 689", mode),
        ("/a 0666x", mode),
        ("/a xyz", mode),
        ("/a b", mode),
    ] {
        let expected = format!("F:2:11: conf: directive \"listen\" {reason}");
        assert_eq!(bad(&listening(text)), expected, "{text}");
    }
    let long = format!("/{}", "x".repeat(107));
    assert_eq!(
        bad(&listening("'[::1]:22121'")),
        "F:2:11: conf: directive \"listen\" has an invalid value (host '[::1]': an IPv6 address has \
         no brackets: ::1:22121)"
    );
    for text in ["':22121'", "no.such.host.invalid:1", &long] {
        let error = bad(&listening(text));
        let expected = "F:2:11: conf: directive \"listen\" has an invalid value";
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

// C46 C47
#[test]
fn server_entries_have_their_names() {
    for (entry, name, weight, address) in [
        ("h:11212:1", "h:11212", 1, tcp("h", 11212)),
        ("h:11211:1", "h", 1, tcp("h", 11211)),
        ("h:011211:1", "h", 1, tcp("h", 11211)),
        ("h:011212:1", "h:011212", 1, tcp("h", 11212)),
        ("h:11211:5 name", "name", 5, tcp("h", 11211)),
        ("h:1:2147483647 a:b", "a:b", 2_147_483_647, tcp("h", 1)),
        ("::1:6379:1", "::1:6379", 1, tcp("::1", 6379)),
        ("fe80::1:11211:1", "fe80::1", 1, tcp("fe80::1", 11211)),
        (
            "/a/b.sock:1",
            "/a/b.sock:",
            1,
            ServerAddress::Unix("/a/b.sock".into()),
        ),
        (
            "/a/b.sock:3 name",
            "name",
            3,
            ServerAddress::Unix("/a/b.sock".into()),
        ),
        ("\"h:1:1\"", "h:1", 1, tcp("h", 1)),
    ] {
        let config = good(&serving(&[entry]));
        let server = &config.core.pools[0].servers[0];
        assert_eq!((&*server.name, server.weight), (name, weight), "{entry}");
        assert_eq!(config.pools[0].servers, [address], "{entry}");
    }
}

// D71
#[test]
fn server_entries_are_refused_in_the_words_of_nutcracker() {
    let shape = "has an invalid \"hostname:port:weight [name]\"or \
                 \"/path/unix_socket:weight [name]\" format string";
    let weight = "has an invalid weight in \"hostname:port:weight [name]\" format string";
    let zero = "has a zero weight in \"hostname:port:weight [name]\" format string";
    let port = "has an invalid port in \"hostname:port:weight [name]\" format string";
    for (entry, reason) in [
        ("h", shape),
        ("h:1", shape),
        ("h:1 name", shape),
        ("/a", shape),
        ("/a:b:1", shape),
        ("h:1:x", weight),
        ("h:1:-1", weight),
        ("'h:1:'", weight),
        ("h:1:2147483648", weight),
        ("h:1:4294967297", weight),
        ("/a:x", weight),
        ("h:1:0", zero),
        ("/a:0 name", zero),
        ("h:0:1", port),
        ("h:65536:1", port),
        ("h:x:1", port),
        ("h::1", port),
        ("''", "has an empty value"),
    ] {
        let text = serving(&["ok:1:1", entry]);
        let expected = format!("F:5:7: conf: directive \"servers\" {reason}");
        assert_eq!(bad(&text), expected, "{entry}");
    }
    for entry in ["h:1:1  name", "h:1:1 two words", "/a:1 two words"] {
        let text = serving(&["ok:1:1", entry]);
        let hint = "(one blank before the name, none in it)";
        let expected = format!("F:5:7: conf: directive \"servers\" {weight} {hint}");
        assert_eq!(bad(&text), expected, "{entry}");
    }
}
