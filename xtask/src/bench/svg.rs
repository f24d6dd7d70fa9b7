//! Line charts as SVG: enough for the report, readable in a browser and in a diff.

use std::fmt::Write as _;

/// One chart.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) x_label: &'a str,
    pub(crate) y_label: &'a str,
    pub(crate) scale: Scale,
    /// Where the x axis is named, and how.
    pub(crate) ticks: Vec<(f64, String)>,
    pub(crate) series: Vec<Series>,
}

/// One line of a chart.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How values stand on the y axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// Equal ratios at equal distances.
    Log,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 56.0;

/// Told apart by people who see red and green alike.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// Where a value stands between the ends of an axis.
struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, scale: Scale) -> Option<Self> {
        let (low, high) = values
            .filter(|value| value.is_finite() && (scale == Scale::Linear || *value > 0.0))
            .fold((f64::MAX, f64::MIN), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if low > high {
            return None;
        }
        Some(match scale {
            Scale::Linear => Self {
                low: 0.0,
                high: if high > 0.0 { high * 1.05 } else { 1.0 },
                scale,
            },
            Scale::Log => Self {
                low: low / 1.3,
                high: high * 1.3,
                scale,
            },
        })
    }

    /// 0 at the low end, 1 at the high one.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        }
    }

    /// Round values between the ends.
    fn ticks(&self) -> Vec<f64> {
        let steps: Vec<f64> = (-4..=9)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
            .collect();
        match self.scale {
            Scale::Log => steps
                .into_iter()
                .filter(|step| (self.low..=self.high).contains(step))
                .collect(),
            Scale::Linear => {
                let step = steps
                    .into_iter()
                    .find(|step| self.high / step <= 7.0)
                    .unwrap_or(self.high);
                let counts = (0..=7_u32).map(|count| f64::from(count) * step);
                counts.take_while(|value| *value <= self.high).collect()
            }
        }
    }
}

impl Chart<'_> {
    /// The chart as a file; `None` if there is nothing to draw.
    pub(crate) fn svg(&self) -> Option<String> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let y = Axis::over(points().map(|point| point.1), self.scale)?;
        let xs = points()
            .map(|point| point.0)
            .chain(self.ticks.iter().map(|tick| tick.0));
        let (low, high) = xs.fold((f64::MAX, f64::MIN), |(low, high), x| {
            (low.min(x), high.max(x))
        });
        let x = Axis {
            low,
            high: if high > low { high } else { low + 1.0 },
            scale: Scale::Linear,
        };
        let at_x = |value: f64| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
        let at_y = |value: f64| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);

        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>\n",
            escape(self.title)
        );
        // Writing into a string cannot fail.
        for value in y.ticks() {
            let at = at_y(value);
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0
            );
        }
        for (value, name) in &self.ticks {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                at_x(*value),
                HEIGHT - BOTTOM + 18.0,
                escape(name)
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            LEFT.midpoint(WIDTH - RIGHT),
            HEIGHT - 12.0,
            escape(self.x_label),
            TOP.midpoint(HEIGHT - BOTTOM),
            escape(self.y_label)
        );
        for (index, series) in self.series.iter().enumerate() {
            push_series(&mut out, index, series, &at_x, &at_y);
        }
        out.push_str("</svg>\n");
        Some(out)
    }
}

fn push_series(
    out: &mut String,
    index: usize,
    series: &Series,
    at_x: &dyn Fn(f64) -> f64,
    at_y: &dyn Fn(f64) -> f64,
) {
    let colour = COLOURS[index % COLOURS.len()];
    let points: Vec<String> = series
        .points
        .iter()
        .map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y)))
        .collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        points.join(" ")
    );
    if points.len() <= MARKED_MAX {
        for (x, y) in &series.points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                at_x(*x),
                at_y(*y)
            );
        }
    }
    let row = u32::try_from(index).map_or(0.0, f64::from);
    let y = TOP + 10.0 + row * 20.0;
    let _ = writeln!(
        out,
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        WIDTH - RIGHT + 14.0,
        y - 6.0,
        WIDTH - RIGHT + 34.0,
        y,
        escape(&series.name)
    );
}

/// A line with more points than this is a curve, and dots would hide it.
const MARKED_MAX: usize = 10;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart<'static> {
        Chart {
            title: "a < b",
            x_label: "x",
            y_label: "y",
            scale: Scale::Log,
            ticks: vec![(0.0, "none".to_owned())],
            series: vec![Series {
                name: "ours".to_owned(),
                points,
            }],
        }
    }

    #[test]
    fn a_chart_has_a_line_per_series_and_escapes_its_words() {
        let svg = chart(vec![(0.0, 1.0), (1.0, 100.0)]).svg().expect("points");
        assert_eq!(svg.matches("<polyline").count(), 1);
        assert!(svg.contains("a &lt; b"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn a_chart_without_points_is_none() {
        assert!(chart(Vec::new()).svg().is_none());
    }

    #[test]
    fn higher_values_stand_higher() {
        let axis = Axis::over([1.0, 10.0, 100.0].into_iter(), Scale::Log).expect("values");
        assert!(axis.place(1.0) < axis.place(10.0) && axis.place(10.0) < axis.place(100.0));
        assert_eq!(axis.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }
}
