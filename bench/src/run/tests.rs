use super::*;
use crate::protocol::{KeyLengths, Op};
use crate::script::Traffic;
use crate::workload::Beside;

fn workload(protocol: Protocol, op: Op, transport: Transport) -> Workload {
    Workload {
        traffic: Traffic {
            protocol,
            op,
            keys: if matches!(op, Op::Mget | Op::Mset) {
                5
            } else {
                1
            },
            value_size: 32,
            key_lengths: KeyLengths::Mixed,
        },
        pace: Pace::Closed { depth: 4 },
        clients: 3,
        servers: 2,
        warmup: Duration::ZERO,
        duration: Duration::from_secs(20),
        requests: Some(500),
        transport,
        pool_lines: Vec::new(),
        beside: None,
        idle: 0,
        watch: None,
        pinning: None,
        progress: Progress::Silent,
    }
}

#[test]
fn a_run_without_a_proxy_gets_every_reply() {
    for (protocol, op) in [
        (Protocol::Redis, Op::Get),
        (Protocol::Redis, Op::Set),
        (Protocol::Redis, Op::Mget),
        (Protocol::Redis, Op::Mset),
        (Protocol::Memcache, Op::Get),
        (Protocol::Memcache, Op::Set),
        (Protocol::Memcache, Op::Mget),
    ] {
        for transport in [Transport::Tcp, Transport::Unix] {
            let workload = workload(protocol, op, transport);
            let report = run(&workload, &Target::Direct).expect("a run without faults");
            assert!(report.requests >= 500, "{}", workload.title());
            assert!(report.latency.p50 > 0 && report.latency.p50 <= report.latency.max);
        }
    }
}

#[test]
fn large_values_arrive_whole_in_both_directions() {
    for op in [Op::Get, Op::Set] {
        let mut workload = workload(Protocol::Redis, op, Transport::Tcp);
        workload.traffic.value_size = 1_000_000;
        workload.requests = Some(20);
        run(&workload, &Target::Direct).expect("a run without faults");
    }
}

#[test]
fn open_loop_keeps_its_rate_and_reports_its_lag() {
    let mut workload = workload(Protocol::Memcache, Op::Get, Transport::Tcp);
    workload.pace = Pace::Open {
        rate: 2000,
        burst: 1,
    };
    workload.requests = None;
    workload.duration = Duration::from_millis(500);
    let report = run(&workload, &Target::Direct).expect("a run without faults");
    // The rate is an upper bound whatever else the machine does, and a late tool catches up.
    assert!(
        (500..=1100).contains(&report.requests),
        "{} replies",
        report.requests
    );
    assert!(report.open.is_some());
}

#[test]
fn a_proxy_that_ends_at_once_is_a_failure_with_its_words() {
    let workload = workload(Protocol::Redis, Op::Get, Transport::Tcp);
    let failure =
        run(&workload, &Target::Start("ls {dir}/missing".to_owned())).expect_err("no proxy");
    assert!(failure.to_string().contains("missing"), "{failure}");
}

#[test]
fn a_peer_that_answers_wrongly_is_a_failure() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    let liar = std::thread::spawn(move || {
        // The first connection only asks whether somebody is there.
        drop(listener.accept());
        let (mut client, _) = listener.accept().expect("the client of the run");
        std::io::Write::write_all(&mut client, b"$32\r\nnot the value that belongs here.\r\n")
            .expect("room in the socket");
        client
    });
    let mut workload = workload(Protocol::Redis, Op::Get, Transport::Tcp);
    workload.clients = 1;
    let target = Target::Running {
        pool: Addr::Tcp(addr.to_string()),
        servers: Vec::new(),
        pid: None,
    };
    let failure = run(&workload, &target).expect_err("a wrong reply");
    assert!(failure.to_string().contains("wrong reply"), "{failure}");
    drop(liar.join());
}

#[test]
fn configuration_names_pool_and_servers() {
    let mut workload = workload(Protocol::Memcache, Op::Get, Transport::Tcp);
    workload.pool_lines = vec!["timeout: 400".to_owned()];
    let text = config(
        &workload,
        &Addr::Tcp("127.0.0.1:1".to_owned()),
        &[Addr::Tcp("127.0.0.1:2".to_owned())],
    );
    assert!(text.contains("\n  listen: 127.0.0.1:1\n"), "{text}");
    assert!(text.contains("\n  redis: false\n"), "{text}");
    assert!(
        text.contains("\n  timeout: 400\n  servers:\n    - 127.0.0.1:2:1 server0\n"),
        "{text}"
    );
}

#[test]
fn a_second_group_with_values_of_another_size_runs_beside_the_first() {
    let mut workload = workload(Protocol::Memcache, Op::Get, Transport::Unix);
    workload.beside = Some(Beside {
        traffic: Traffic {
            value_size: 70_000,
            ..workload.traffic
        },
        clients: 2,
        depth: 3,
        rate: None,
        read_rate: None,
    });
    workload.idle = 5;
    let report = run(&workload, &Target::Direct).expect("a run without faults");
    assert!(report.requests >= 500);
    assert!(workload.title().contains("beside 2 clients"));
}

#[test]
fn slow_readers_are_served_to_the_end_and_checked() {
    let mut workload = workload(Protocol::Redis, Op::Get, Transport::Tcp);
    workload.beside = Some(Beside {
        traffic: Traffic {
            value_size: 70_000,
            ..workload.traffic
        },
        clients: 2,
        depth: 8,
        rate: None,
        read_rate: Some(2_000_000),
    });
    // A run ends only when every reply has come.
    let report = run(&workload, &Target::Direct).expect("a run without faults");
    assert!(report.requests >= 500);
    assert!(workload.title().contains("2000000 B/s"));
}
