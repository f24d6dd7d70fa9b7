//! The report's charts.

use super::cells::{NUTCRACKER, OURS};
use super::figures::Figure;
use super::report::PEERS;
use super::runs::Run;
use super::svg::{Chart, Scale, Series};

/// The charts that have something to show, by file name.
pub(crate) fn charts(runs: &[Run]) -> Vec<(&'static str, String)> {
    let charts = [
        ("cpu-by-depth.svg", cost_chart(runs)),
        ("latency.svg", latency_chart(runs)),
        ("memory.svg", memory_chart(runs)),
    ];
    charts
        .into_iter()
        .filter_map(|(name, chart)| Some((name, chart.svg()?)))
        .collect()
}

fn cost_chart(runs: &[Run]) -> Chart<'static> {
    let depths = [
        (0.0, "redis-get-1", "1"),
        (1.0, "redis-get-16", "16"),
        (2.0, "redis-get-64", "64"),
    ];
    let line_of = |name: &str| Series {
        name: name.to_owned(),
        points: depths
            .iter()
            .filter_map(|(x, cell, _)| Some((*x, Figure::Cpu.middle(runs, cell, name)?)))
            .collect(),
    };
    Chart {
        title: "redis GET: proxy CPU per request",
        x_label: "requests that each of 50 clients keeps in flight",
        y_label: "microseconds",
        scale: Scale::Log,
        ticks: depths
            .iter()
            .map(|(x, _, name)| (*x, (*name).to_owned()))
            .collect(),
        series: PEERS
            .map(line_of)
            .into_iter()
            .filter(|series| !series.points.is_empty())
            .collect(),
    }
}

fn latency_chart(runs: &[Run]) -> Chart<'static> {
    let percentiles = [
        (0.0, Figure::P50, "p50"),
        (1.0, Figure::P99, "p99"),
        (2.0, Figure::P999, "p99.9"),
    ];
    let loads = [("open-half", "half load"), ("open-90", "90 % load")];
    let series = loads.iter().flat_map(|(cell, load)| {
        [OURS, NUTCRACKER].map(|name| Series {
            name: format!("{name}, {load}"),
            points: percentiles
                .iter()
                .filter_map(|(x, figure, _)| Some((*x, figure.middle(runs, cell, name)?)))
                .collect(),
        })
    });
    Chart {
        title: "redis GET at a share of nutcracker's capacity: latency",
        x_label: "percentile",
        y_label: "microseconds since due",
        scale: Scale::Log,
        ticks: percentiles
            .iter()
            .map(|(x, _, name)| (*x, (*name).to_owned()))
            .collect(),
        series: series.filter(|series| !series.points.is_empty()).collect(),
    }
}

fn memory_chart(runs: &[Run]) -> Chart<'static> {
    let series = PEERS.iter().filter_map(|name| {
        let run = runs
            .iter()
            .find(|run| run.cell == "burst" && run.candidate == *name)?;
        let samples = run.result.as_ref().ok()?["memory"]["series"].as_array()?;
        let points = samples
            .iter()
            .filter_map(|sample| Some((sample[0].as_f64()?, sample[1].as_f64()? / 1024.0)));
        Some(Series {
            name: (*name).to_owned(),
            points: points.collect(),
        })
    });
    Chart {
        title: "A burst of 80 clients pipelining 200 GETs of 1 KiB, then rest: resident memory",
        x_label: "seconds",
        y_label: "MiB",
        scale: Scale::Log,
        ticks: (0..=6_u32)
            .map(|count| (f64::from(count) * 2.0, (count * 2).to_string()))
            .collect(),
        series: series.collect(),
    }
}
