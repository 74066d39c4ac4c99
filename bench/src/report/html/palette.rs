//! Colours. A plot is drawn once, in those of the light scheme; the style sheet replaces them by their values, so that the
//! dark scheme needs no other plot.

use plotters::style::RGBColor;

/// What has a colour, by its name in the style sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    Paper,
    Sheet,
    Line,
    Text,
    Quiet,
    Ours,
    Limit,
    Kernel,
    Peer,
    Faster,
    Slower,
}

impl Ink {
    const ALL: [Self; 11] = [
        Self::Paper,
        Self::Sheet,
        Self::Line,
        Self::Text,
        Self::Quiet,
        Self::Ours,
        Self::Limit,
        Self::Kernel,
        Self::Peer,
        Self::Faster,
        Self::Slower,
    ];

    /// Its name, and its colours by light and in the dark. No two are the same by light, as plots know them by that.
    const fn look(self) -> (&'static str, u32, u32) {
        match self {
            Self::Paper => ("paper", 0xf6f7f9, 0x12151a),
            Self::Sheet => ("sheet", 0xffffff, 0x1a1e25),
            Self::Line => ("line", 0xdfe3e8, 0x333a45),
            Self::Text => ("text", 0x1b2028, 0xe6e9ee),
            Self::Quiet => ("quiet", 0x667080, 0x98a2b3),
            Self::Ours => ("ours", 0x1f6fd6, 0x6aaeff),
            Self::Limit => ("limit", 0x8a93a0, 0x8d97a6),
            Self::Kernel => ("kernel", 0xd9730d, 0xf39c4a),
            Self::Peer => ("peer", 0x8250c8, 0xb794f4),
            Self::Faster => ("faster", 0x1a7f4b, 0x4ac98a),
            Self::Slower => ("slower", 0xc9352b, 0xff7b72),
        }
    }

    pub const fn name(self) -> &'static str {
        self.look().0
    }

    /// As plots have it.
    pub const fn light(self) -> RGBColor {
        let [_, red, green, blue] = self.look().1.to_be_bytes();
        RGBColor(red, green, blue)
    }
}

/// Variables of both schemes, and rules that give them to plots.
pub fn style_sheet() -> String {
    let variables = |of: fn(Ink) -> u32| -> String {
        Ink::ALL.iter().map(|ink| format!("--{}:#{:06x};", ink.name(), of(*ink))).collect()
    };
    let mut sheet = format!(
        ":root{{color-scheme:light dark;{}}}\n@media (prefers-color-scheme: dark){{:root{{{}}}}}\n",
        variables(|ink| ink.look().1),
        variables(|ink| ink.look().2),
    );
    // As plots write colours: in capitals.
    let rule = |ink: &Ink, property: &str| {
        let (name, light, _) = ink.look();
        format!("svg [{property}=\"#{light:06X}\"]{{{property}:var(--{name})}}\n")
    };
    sheet.extend(Ink::ALL.iter().flat_map(|ink| [rule(ink, "fill"), rule(ink, "stroke")]));
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_can_be_told_apart_in_plots() {
        let mut lights: Vec<u32> = Ink::ALL.iter().map(|ink| ink.look().1).collect();
        lights.sort_unstable();
        lights.dedup();
        assert_eq!(lights.len(), Ink::ALL.len());
    }

    #[test]
    fn every_colour_of_a_plot_follows_the_scheme() {
        let sheet = style_sheet();
        assert!(sheet.contains("svg [fill=\"#1F6FD6\"]{fill:var(--ours)}"), "{sheet}");
        assert!(sheet.contains("--ours:#1f6fd6;") && sheet.contains("--ours:#6aaeff;"), "{sheet}");
    }
}
