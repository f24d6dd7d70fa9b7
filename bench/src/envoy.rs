//! Envoy's configuration for a run: the same pool as the other proxies get, in Envoy's words.

use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::net::Addr;

/// A bootstrap file: one redis listener, one cluster of the canned servers with consistent hashing, no admin port.
pub(crate) fn bootstrap(pool: &Addr, servers: &[Addr]) -> Outcome<String> {
    let endpoints = servers
        .iter()
        .map(|server| Ok(json!({ "endpoint": { "address": address(server)? } })))
        .collect::<Outcome<Vec<Value>>>()?;
    let proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        "stat_prefix": "bench",
        "settings": { "op_timeout": "10s" },
        "prefix_routes": { "catch_all_route": { "cluster": "servers" } },
    });
    let bootstrap = json!({
        "static_resources": {
            "listeners": [{
                "name": "pool",
                "address": address(pool)?,
                "filter_chains": [{ "filters": [{ "name": "redis", "typed_config": proxy }] }],
            }],
            "clusters": [{
                "name": "servers",
                "type": "STATIC",
                "connect_timeout": "5s",
                "lb_policy": "MAGLEV",
                "load_assignment": { "cluster_name": "servers", "endpoints": [{ "lb_endpoints": endpoints }] },
            }],
        },
    });
    Ok(bootstrap.to_string())
}

fn address(addr: &Addr) -> Outcome<Value> {
    match addr {
        Addr::Unix(path) => Ok(json!({ "pipe": { "path": path } })),
        Addr::Tcp(text) => text
            .rsplit_once(':')
            .and_then(|(host, port)| {
                let port: u16 = port.parse().ok()?;
                Some(json!({ "socket_address": { "address": host, "port_value": port } }))
            })
            .ok_or_else(|| Failure::new(format!("'{text}' has no port"))),
    }
}

/// One worker, nothing shared with another Envoy of this machine, and as quiet as the others.
pub(crate) fn command(program: &str) -> String {
    format!("{program} -c {{envoy}} --concurrency 1 --disable-hot-restart --log-level error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_an_endpoint() {
        let servers = [
            Addr::Tcp("127.0.0.1:7001".to_owned()),
            Addr::Unix("/s/1.sock".into()),
        ];
        let text = bootstrap(&Addr::Tcp("127.0.0.1:7000".to_owned()), &servers).expect("addresses");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let cluster = &value["static_resources"]["clusters"][0];
        let endpoints = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
        assert_eq!(
            endpoints[0]["endpoint"]["address"]["socket_address"]["port_value"],
            7001
        );
        assert_eq!(
            endpoints[1]["endpoint"]["address"]["pipe"]["path"],
            "/s/1.sock"
        );
    }
}
