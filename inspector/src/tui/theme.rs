//! Colours and glyphs by meaning.
//!
//! Hues are those of Okabe and Ito, which stay apart for colour-blind eyes; every class of the map
//! also has a glyph of its own, so that nothing is told by colour alone.

use super::capture::Class;
use crate::view::Role;
use ratatui::style::{Color, Modifier, Style};

/// How many colours the terminal has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// 24 bits.
    True,
    /// The 256 of xterm.
    Indexed,
    /// The 16 of old.
    Ansi,
    /// None wanted: bold and reverse only.
    Mono,
}

impl Depth {
    /// What the environment says: `NO_COLOR`, `COLORTERM`, `TERM`.
    pub fn detect(var: impl Fn(&str) -> Option<String>) -> Self {
        let has = |name: &str, words: &[&str]| {
            var(name).is_some_and(|value| words.iter().any(|word| value.contains(word)))
        };
        if var("NO_COLOR").is_some_and(|value| !value.is_empty()) || has("TERM", &["dumb"]) {
            Self::Mono
        } else if has("COLORTERM", &["truecolor", "24bit"]) || has("TERM", &["direct"]) {
            Self::True
        } else if has("TERM", &["256color", "kitty", "alacritty"]) {
            Self::Indexed
        } else {
            Self::Ansi
        }
    }
}

/// A hue in each of the settings.
struct Hue {
    dark: [u8; 3],
    light: [u8; 3],
    ansi: Color,
}

const fn hue(dark: [u8; 3], light: [u8; 3], ansi: Color) -> Hue {
    Hue { dark, light, ansi }
}

// Okabe–Ito; on a light ground the same hues, darkened until they can be read as text.
const SKY: Hue = hue([86, 180, 233], [0, 98, 155], Color::Cyan);
const ORANGE: Hue = hue([230, 159, 0], [148, 90, 0], Color::Yellow);
const GREEN: Hue = hue([44, 184, 142], [0, 112, 82], Color::Green);
const YELLOW: Hue = hue([240, 228, 66], [116, 106, 0], Color::LightYellow);
const PURPLE: Hue = hue([204, 121, 167], [148, 56, 108], Color::Magenta);
const RED: Hue = hue([232, 94, 52], [184, 40, 0], Color::Red);
const GREY: Hue = hue([138, 146, 155], [104, 112, 122], Color::DarkGray);
const INK: Hue = hue([222, 226, 230], [28, 32, 38], Color::Reset);

const DARK_GROUND: [u8; 3] = [16, 19, 24];
const LIGHT_GROUND: [u8; 3] = [255, 255, 255];

/// How meanings look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Theme {
    /// Number of colours.
    pub depth: Depth,
    /// The terminal's ground is light.
    pub light: bool,
}

impl Theme {
    fn ground(self) -> [u8; 3] {
        if self.light {
            LIGHT_GROUND
        } else {
            DARK_GROUND
        }
    }

    fn rgb(self, hue: &Hue) -> [u8; 3] {
        if self.light { hue.light } else { hue.dark }
    }

    fn colour(self, rgb: [u8; 3], ansi: Color) -> Color {
        match self.depth {
            Depth::True => Color::Rgb(rgb[0], rgb[1], rgb[2]),
            Depth::Indexed => Color::Indexed(nearest_indexed(rgb)),
            Depth::Ansi => ansi,
            Depth::Mono => Color::Reset,
        }
    }

    fn fg(self, hue: &Hue) -> Style {
        match self.depth {
            Depth::Mono => Style::new(),
            _ => Style::new().fg(self.colour(self.rgb(hue), hue.ansi)),
        }
    }

    /// A ground tinted with `percent` of a hue; none where there are too few colours for tints.
    fn tint(self, hue: &Hue, percent: u32) -> Style {
        let mix = |i: usize| {
            let (hue, ground) = (u32::from(self.rgb(hue)[i]), u32::from(self.ground()[i]));
            ((hue * percent + ground * (100 - percent)) / 100) as u8
        };
        match self.depth {
            Depth::True | Depth::Indexed => {
                Style::new().bg(self.colour([mix(0), mix(1), mix(2)], Color::Reset))
            }
            Depth::Ansi | Depth::Mono => Style::new(),
        }
    }

    /// Text by its role.
    pub fn role(self, role: Role) -> Style {
        match role {
            Role::Plain | Role::Address => Style::new(),
            Role::Dim => self.dim(),
            Role::Symbol => self.fg(&INK).add_modifier(Modifier::ITALIC),
            Role::Host => self.fg(&SKY),
            Role::Hyp => self.fg(&ORANGE),
            Role::Guest => self.fg(&PURPLE),
            Role::SharedOwned => self.fg(&GREEN),
            Role::SharedBorrowed => self.fg(&YELLOW),
            Role::Raw | Role::Mmio => self.fg(&GREY),
            Role::Active => self.active(),
            Role::Problem => self.problem(),
        }
    }

    fn class_hue(class: Class) -> &'static Hue {
        match class {
            Class::Nothing | Class::Mmio => &GREY,
            Class::Lazy | Class::Host => &SKY,
            Class::Hyp => &ORANGE,
            Class::Guest => &PURPLE,
            Class::SharedOwned => &GREEN,
            Class::SharedBorrowed => &YELLOW,
            Class::Problem => &RED,
        }
    }

    /// A cell of the map: the ground of what fills most of it, the ink of what is most notable in it.
    pub fn map_cell(self, ground: Class, ink: Class) -> Style {
        let style = self.class_ground(ground).patch(match ink {
            Class::Nothing | Class::Lazy => self.faint(),
            _ => self.fg(Self::class_hue(ink)),
        });
        match (ink, self.depth) {
            (Class::Problem, Depth::Mono | Depth::Ansi) => {
                style.add_modifier(Modifier::BOLD | Modifier::REVERSED)
            }
            (Class::Problem | Class::SharedOwned | Class::SharedBorrowed, _) => {
                style.add_modifier(Modifier::BOLD)
            }
            _ => style,
        }
    }

    fn class_ground(self, class: Class) -> Style {
        match class {
            Class::Nothing => Style::new(),
            Class::Lazy => self.tint(&GREY, 10),
            Class::Mmio => self.tint(&GREY, 30),
            other => self.tint(Self::class_hue(other), 28),
        }
    }

    /// A class's name in its colour.
    pub fn class(self, class: Class) -> Style {
        match class {
            Class::Nothing | Class::Lazy => self.dim(),
            Class::Problem => self.problem(),
            _ => self.fg(Self::class_hue(class)),
        }
    }

    /// Labels, rules, what is of little weight.
    pub fn dim(self) -> Style {
        match self.depth {
            Depth::Mono => Style::new().add_modifier(Modifier::DIM),
            _ => self.fg(&GREY),
        }
    }

    /// What should hardly be seen.
    fn faint(self) -> Style {
        let mix = |i: usize| {
            let (grey, ground) = (u32::from(self.rgb(&GREY)[i]), u32::from(self.ground()[i]));
            ((grey + ground) / 2) as u8
        };
        match self.depth {
            Depth::True | Depth::Indexed => {
                Style::new().fg(self.colour([mix(0), mix(1), mix(2)], Color::Reset))
            }
            Depth::Ansi | Depth::Mono => self.dim(),
        }
    }

    /// Titles.
    pub fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Something going on.
    pub fn active(self) -> Style {
        self.fg(&GREEN).add_modifier(Modifier::BOLD)
    }

    /// Something wrong.
    pub fn problem(self) -> Style {
        self.fg(&RED).add_modifier(Modifier::BOLD)
    }

    /// What changed since the last capture, over what it was drawn with.
    pub fn changed(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    /// The row or the cell that the cursor stands on, over what it was drawn with.
    pub fn selected(self) -> Style {
        match self.depth {
            Depth::True | Depth::Indexed => self.tint(&SKY, 24).add_modifier(Modifier::BOLD),
            Depth::Ansi | Depth::Mono => Style::new().add_modifier(Modifier::REVERSED),
        }
    }

    /// The row that a cursor stands on which the keys do not move now.
    pub fn selected_elsewhere(self) -> Style {
        self.bar().add_modifier(Modifier::BOLD)
    }

    /// The cursor in the map.
    pub fn cursor(self) -> Style {
        match self.depth {
            Depth::True | Depth::Indexed => {
                let ink = self.colour(self.rgb(&INK), Color::Reset);
                let ground = self.colour(self.ground(), Color::Reset);
                Style::new().fg(ground).bg(ink).add_modifier(Modifier::BOLD)
            }
            Depth::Ansi | Depth::Mono => {
                Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
            }
        }
    }

    /// The first line, and the tab that is shown.
    pub fn bar(self) -> Style {
        match self.depth {
            Depth::True | Depth::Indexed => self.tint(&GREY, 20),
            Depth::Ansi | Depth::Mono => Style::new(),
        }
    }

    /// The tab that is shown.
    pub fn tab(self) -> Style {
        match self.depth {
            Depth::Mono | Depth::Ansi => {
                Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
            }
            _ => self
                .fg(&INK)
                .patch(self.tint(&SKY, 45))
                .add_modifier(Modifier::BOLD),
        }
    }

    /// A banner over everything: the link is lost.
    pub fn banner(self) -> Style {
        match self.depth {
            Depth::Mono => Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD),
            _ => Style::new()
                .fg(Color::White)
                .bg(self.colour([184, 40, 0], Color::Red))
                .add_modifier(Modifier::BOLD),
        }
    }
}

/// The nearest of the 256 colours: the 6×6×6 cube or the 24 greys.
fn nearest_indexed([r, g, b]: [u8; 3]) -> u8 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let step = |v: u8| (0..6).min_by_key(|&i| LEVELS[i].abs_diff(v)).unwrap_or(0);
    let cube = [step(r), step(g), step(b)];
    let grey = ((u32::from(r) + u32::from(g) + u32::from(b)) / 3).saturating_sub(3) / 10;
    let grey = grey.min(23) as u8;
    let distance = |other: [u8; 3]| -> u32 {
        [r, g, b]
            .iter()
            .zip(other)
            .map(|(a, b)| u32::from(a.abs_diff(b)).pow(2))
            .sum()
    };
    let level = 8 + 10 * grey;
    if distance([level; 3]) < distance(cube.map(|i| LEVELS[i])) {
        232 + grey
    } else {
        16 + (36 * cube[0] + 6 * cube[1] + cube[2]) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(vars: &[(&str, &str)]) -> Depth {
        Depth::detect(|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn the_environment_decides_the_number_of_colours() {
        assert_eq!(depth(&[("TERM", "xterm-256color")]), Depth::Indexed);
        assert_eq!(
            depth(&[("TERM", "xterm"), ("COLORTERM", "truecolor")]),
            Depth::True
        );
        assert_eq!(depth(&[("TERM", "linux")]), Depth::Ansi);
        assert_eq!(
            depth(&[("TERM", "xterm-256color"), ("NO_COLOR", "1")]),
            Depth::Mono
        );
        // The convention: an empty NO_COLOR is none.
        assert_eq!(
            depth(&[("TERM", "xterm-256color"), ("NO_COLOR", "")]),
            Depth::Indexed
        );
    }

    #[test]
    fn without_colour_no_style_has_one() {
        for light in [false, true] {
            let theme = Theme {
                depth: Depth::Mono,
                light,
            };
            let mut styles = vec![
                theme.dim(),
                theme.title(),
                theme.active(),
                theme.problem(),
                theme.changed(),
                theme.selected(),
                theme.cursor(),
                theme.bar(),
                theme.tab(),
                theme.banner(),
            ];
            for ink in Class::ALL {
                styles.push(theme.class(ink));
                styles.extend(Class::ALL.map(|ground| theme.map_cell(ground, ink)));
            }
            for style in styles {
                assert_eq!((style.fg, style.bg), (None, None), "{style:?}");
            }
        }
    }

    #[test]
    fn text_can_be_read_on_its_ground() {
        // WCAG 2.1 relative luminance; 4.5:1 is asked of text.
        fn luminance(rgb: [u8; 3]) -> f64 {
            let channel = |v: u8| {
                let v = f64::from(v) / 255.0;
                if v <= 0.04045 {
                    v / 12.92
                } else {
                    ((v + 0.055) / 1.055).powf(2.4)
                }
            };
            0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2])
        }
        for light in [false, true] {
            let theme = Theme {
                depth: Depth::True,
                light,
            };
            for hue in [&SKY, &ORANGE, &GREEN, &YELLOW, &PURPLE, &RED, &GREY, &INK] {
                let (a, b) = (luminance(theme.rgb(hue)), luminance(theme.ground()));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(
                    contrast >= 4.5,
                    "{:?} light={light}: {contrast:.1}",
                    theme.rgb(hue)
                );
            }
        }
    }

    #[test]
    fn the_nearest_of_256() {
        assert_eq!(nearest_indexed([0, 0, 0]), 16);
        assert_eq!(nearest_indexed([255, 255, 255]), 231);
        assert_eq!(nearest_indexed([8, 8, 8]), 232);
        assert_eq!(nearest_indexed([215, 0, 0]), 160);
        assert_eq!(nearest_indexed([128, 128, 128]), 244);
    }
}
