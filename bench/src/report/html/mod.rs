//! The report as one HTML file that needs nothing else: no script, no network. It is XML, too.

mod palette;
mod plots;
mod section;

use super::schema::{Change, Comparison, Environment, Run, Verdict};
use super::table::{change_text, number_text};
use anyhow::Result;
use palette::Ink;

/// The whole page.
pub fn page(run: &Run) -> Result<String> {
    let Run { environment, measurements, comparison, quick, .. } = run;
    let title = format!("Serval: {}, commit {}", environment.date, environment.commit);
    let links = measurements.iter().map(|measurement| link(&measurement.name)).collect::<String>();
    let comparison_section = comparison.as_ref().map_or_else(String::new, self::comparison);
    let sections = measurements
        .iter()
        .map(|measurement| section::section(measurement, comparison.as_ref()))
        .collect::<Result<String>>()?;
    let quick = if *quick {
        "<p class=\"warning\">These were quick rounds: enough to see that all works, not to compare numbers.</p>"
    } else {
        ""
    };
    Ok(format!(
        "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n\
         <meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{palette}{style}</style>\n</head>\n<body>\n<header>\n\
         <h1>Serval, measured</h1>\n<p class=\"quiet\">{subtitle}</p>\n{quick}\n{environment}\n\
         <nav>{links}</nav>\n</header>\n<main>\n{legend}\n{comparison_section}{sections}</main>\n</body>\n</html>\n",
        title = escape(&title),
        palette = palette::style_sheet(),
        style = include_str!("style.css"),
        subtitle = escape(&environment.command),
        environment = self::environment(environment),
        legend = legend(),
    ))
}

fn environment(environment: &Environment) -> String {
    let unknown = || "unknown".to_owned();
    let load = |load: Option<f64>| load.map_or_else(unknown, |load| load.to_string());
    let edited = if environment.dirty { ", edited since" } else { "" };
    let facts = [
        ("date", environment.date.clone()),
        ("commit", format!("{}{edited}", environment.commit)),
        ("kernel", environment.kernel.clone()),
        ("CPU", format!("{} x {}", environment.cpus, environment.cpu)),
        ("memory", environment.memory.map_or_else(unknown, |mib| format!("{mib} MiB"))),
        (
            "load average, before and after",
            format!("{}, {}", load(environment.load_before), load(environment.load_after)),
        ),
        ("compiler of the programs", environment.compiler.clone()),
        ("their linker", environment.linker.clone()),
    ];
    let facts = facts.map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value)));
    format!("<dl>{}</dl>", facts.concat())
}

fn legend() -> String {
    let inks = [
        (Ink::Ours, "Serval"),
        (Ink::Limit, "bare redirect, the limit of its hook"),
        (Ink::Kernel, "the kernel, without BPF"),
        (Ink::Peer, "others"),
    ];
    let inks = inks
        .map(|(ink, what)| format!("<span><i style=\"background:var(--{})\"></i>{what}</span>", ink.name()));
    format!(
        "<section><p class=\"legend\">{}</p>\
         <p class=\"quiet\">A ratio is how many times as good as the other an arm was in the same round: above 1 it was \
         better, whatever is measured. Bars are medians of these ratios; whiskers say where the true median is, with a \
         confidence of 95 %, if there were six rounds or more. Dots are rounds, the first on top; boxes go from the tenth \
         to the ninetieth percentile, and the line in them is the median.</p></section>\n",
        inks.concat()
    )
}

fn comparison(comparison: &Comparison) -> String {
    let Comparison { file, environment, differences, changes, unmatched } = comparison;
    let warnings = differences
        .iter()
        .map(|line| format!("<p class=\"warning\">Not the same machine or run: {}.</p>", escape(line)));
    let count = |verdict| changes.iter().filter(|change| change.verdict == verdict).count();
    let counts = [Verdict::Faster, Verdict::Slower, Verdict::Same, Verdict::Unknown]
        .map(|verdict| format!("{} {}", count(verdict), verdict.name()))
        .join(", ");
    let (changed, others): (Vec<&Change>, Vec<&Change>) =
        changes.iter().partition(|change| matches!(change.verdict, Verdict::Faster | Verdict::Slower));
    let changed = if changed.is_empty() { String::new() } else { table(&changed) };
    let others = if others.is_empty() {
        String::new()
    } else {
        format!("<details><summary>The others</summary>{}</details>", table(&others))
    };
    let unmatched =
        unmatched.iter().map(|line| format!("<p class=\"quiet\">Not in both: {}.</p>", escape(line)));
    format!(
        "<section id=\"comparison\"><h2>Compared with {}</h2>\
         <p class=\"quiet\">of {}, commit {}: {counts}. A change is one of the ratio, so that a machine which was faster or \
         busier then does not count; it is one only if its interval of 95 % leaves out that there is none. So of twenty \
         arms that did not change, one says that it did.</p>{}{changed}{others}{}</section>\n",
        escape(file),
        escape(&environment.date),
        escape(&environment.commit),
        warnings.collect::<String>(),
        unmatched.collect::<String>(),
    )
}

fn table(changes: &[&Change]) -> String {
    let rows = changes.iter().map(|change| {
        let verdict = change.verdict.name();
        format!(
            "<tr><td>{}, {}</td><td class=\"text\">{}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td class=\"text verdict {verdict}\">{verdict}</td></tr>\n",
            escape(&change.measurement),
            escape(&change.metric),
            escape(&change.arm),
            escape(change.to.as_deref().unwrap_or("(absolute)")),
            number_text(change.before),
            number_text(change.after),
            escape(&change_text(change)),
        )
    });
    format!(
        "<div class=\"wide\"><table><tr><th>measurement</th><th class=\"text\">arm</th><th class=\"text\">ratio to</th>\
         <th>then</th><th>now</th><th>change</th><th class=\"text\"></th></tr>\n{}</table></div>",
        rows.collect::<String>()
    )
}

fn link(name: &str) -> String {
    format!("<a href=\"#{}\">{}</a>", anchor(name), escape(name))
}

/// What a link to a measurement is called: letters and digits of its name, in order.
fn anchor(name: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    format!("measurement-{}", name.chars().map(plain).collect::<String>())
}

/// Text as HTML and XML have it; characters that neither can hold are shown as ones that are not known.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(' '),
            control if control.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::schema::Size;
    use super::super::tests::{outcome, run};
    use super::super::{compare, measurement};
    use super::*;
    use proptest::prelude::*;
    use roxmltree::{Document, ParsingOptions};

    fn parse(page: &str) -> Document<'_> {
        Document::parse_with_options(page, ParsingOptions { allow_dtd: true, ..Default::default() }).unwrap()
    }

    /// With all that a report can have, and names that would break it.
    fn everything() -> Run {
        let mut routes = outcome();
        routes.name = "<routes>".to_owned();
        for (arm, count) in routes.arms.iter_mut().zip([1, 1000]) {
            arm.limit = None;
            arm.size =
                Some(Size { line: "serval </text>".to_owned(), of: "routes & \"rules\"".to_owned(), count });
        }
        let mut run = run();
        run.measurements.push(measurement(routes));
        run.measurements[0].arms[0].rounds[2].rejected.push("a\u{7}\"b\" <c>".to_owned());
        run.comparison = Some(compare("<earlier>.json", &run, &run));
        run
    }

    #[test]
    fn page_is_well_formed_and_has_every_arm_as_text() {
        let (run, page) = (everything(), page(&everything()).unwrap());
        let document = parse(&page);
        let text: String = document.descendants().filter_map(|node| node.text()).collect();
        for measurement in &run.measurements {
            assert!(text.contains(&measurement.name) && text.contains(&measurement.title));
            for arm in &measurement.arms {
                assert!(text.contains(&arm.name), "{}", arm.name);
            }
        }
        assert!(text.contains("serval </text>") && text.contains("<earlier>.json"));
        assert!(page.contains("peer &amp; &lt;co&gt;") && !page.contains("peer & <co>"));
    }

    #[test]
    fn page_asks_nobody_for_anything() {
        let page = page(&everything()).unwrap();
        let document = parse(&page);
        for node in document.descendants().filter(|node| node.is_element()) {
            assert!(!["script", "link", "img", "iframe"].contains(&node.tag_name().name()));
            for attribute in node.attributes() {
                assert!(!attribute.value().contains("//"), "{attribute:?}");
            }
        }
        assert!(!page.contains("@import") && !page.contains("url("));
    }

    #[test]
    fn links_lead_to_their_sections() {
        let page = page(&everything()).unwrap();
        let document = parse(&page);
        let ids: Vec<_> = document.descendants().filter_map(|node| node.attribute("id")).collect();
        let links: Vec<_> = document.descendants().filter_map(|node| node.attribute("href")).collect();
        assert_eq!(links.len(), 2);
        for link in links {
            assert!(ids.contains(&link.trim_start_matches('#')), "{link}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_escaped(text in any::<String>()) {
            let element = format!("<a b=\"{0}\">{0}</a>", escape(&text));
            prop_assert!(Document::parse(&element).is_ok(), "{}", element);
        }
    }
}
