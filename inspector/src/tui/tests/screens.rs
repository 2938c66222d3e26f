//! What every pane looks like, at the sizes people have.

use super::*;
use ratatui::style::{Color, Modifier};

const SIZES: [(u16, u16); 4] = [(80, 24), (120, 40), (160, 50), (300, 100)];

/// Where a pane is worth looking at.
const PANES: [(&str, &str); 7] = [
    ("map", "1n"),
    ("tables", "2g0x48009000\n"),
    ("runs", "3nn"),
    ("owners", "4n"),
    ("page", "4n\n"),
    ("locks", "6"),
    ("cpus", "7jjj"),
];

/// Where VMs are seen.
const GUESTS: [(&str, &str); 8] = [
    ("map", "1vvvv"),
    ("tables", "2vvv"),
    ("runs", "8j\n"),
    ("owners", "4/guest\n"),
    ("page", "5g0x49004000\n"),
    ("cpus", "7l"),
    ("vms", "8j"),
    ("no_vms", "8"),
];

#[test]
fn vms_in_every_pane() {
    for (width, height) in SIZES {
        for (name, keys) in GUESTS {
            let mut state = match name {
                "no_vms" => later_state(width, height),
                _ => guests_state(width, height),
            };
            press(&mut state, keys);
            let name = format!("guests_{name}_{width}x{height}");
            insta::assert_snapshot!(name, screen_text(&state));
        }
    }
}

#[test]
fn every_pane_at_every_size() {
    for (width, height) in SIZES {
        for (name, keys) in PANES {
            let mut state = later_state(width, height);
            press(&mut state, keys);
            let name = format!("{name}_{width}x{height}");
            insta::assert_snapshot!(name, screen_text(&state));
        }
    }
}

/// Runs of cells of one style: row, columns, colours and modifiers, with the text.
fn styles(buffer: &Buffer) -> String {
    let colour = |colour: Color| match colour {
        Color::Reset => "-".to_owned(),
        other => other.to_string(),
    };
    let mut out = String::new();
    let width = usize::from(buffer.area.width);
    for (y, row) in buffer.content.chunks(width).enumerate() {
        for run in row.chunk_by(|a, b| a.style() == b.style()) {
            let text: String = run.iter().map(ratatui::buffer::Cell::symbol).collect();
            let cell = &run[0];
            let plain = cell.fg == Color::Reset && cell.bg == Color::Reset;
            if plain && cell.modifier == Modifier::empty() {
                continue;
            }
            let modifiers: Vec<_> = cell.modifier.iter_names().map(|(name, _)| name).collect();
            let (fg, bg, modifiers) = (colour(cell.fg), colour(cell.bg), modifiers.join("+"));
            out.push_str(&format!(
                "{y:>2} {fg} {bg} {modifiers} |{}|\n",
                text.trim_end()
            ));
        }
    }
    out
}

#[test]
fn colours_by_theme() {
    let themes = [
        ("dark", DARK),
        (
            "light",
            Theme {
                light: true,
                ..DARK
            },
        ),
        (
            "indexed",
            Theme {
                depth: Depth::Indexed,
                ..DARK
            },
        ),
        (
            "ansi",
            Theme {
                depth: Depth::Ansi,
                ..DARK
            },
        ),
        (
            "no_color",
            Theme {
                depth: Depth::Mono,
                ..DARK
            },
        ),
    ];
    for (name, theme) in themes {
        for (pane, keys) in [("map", "1nn"), ("runs", "3nn")] {
            let mut state = later_state(80, 24);
            state.theme = theme;
            press(&mut state, keys);
            let drawn = styles(&draw(&state));
            if name == "no_color" {
                assert!(
                    drawn.lines().all(|line| line[3..].starts_with("- - ")),
                    "{drawn}"
                );
            }
            insta::assert_snapshot!(format!("{pane}_styles_{name}"), drawn);
        }
    }
}

#[test]
fn without_colour_the_map_says_the_same_in_glyphs() {
    let mut state = later_state(120, 60);
    let coloured = screen_text(&state);
    state.theme.depth = Depth::Mono;
    assert_eq!(screen_text(&state), coloured);
    for glyph in ['.', '-', '#', '>', '<', '!', '*'] {
        assert!(coloured.contains(glyph), "{glyph}\n{coloured}");
    }
}

#[test]
fn help_lists_every_key() {
    let mut state = state(DARK, 120, 80);
    press(&mut state, "?");
    let screen = screen_text(&state);
    for binding in super::super::keymap::KEYMAP {
        assert!(screen.contains(binding.help), "{}\n{screen}", binding.help);
        for key in binding.keys {
            assert!(screen.contains(&key.label()), "{}", key.label());
        }
    }
    insta::assert_snapshot!("help", screen);
    press(&mut state, "x");
    assert!(screen_text(&state).contains("1 Map"));
}

#[test]
fn a_short_help_screen_scrolls_to_its_end() {
    let mut state = state(DARK, 80, 24);
    press(&mut state, "?");
    assert!(!screen_text(&state).contains("left as it was found"));
    for _ in 0..20 {
        key(&mut state, KeyCode::PageDown, KeyModifiers::NONE);
    }
    assert!(screen_text(&state).contains("left as it was found"));
}

#[test]
fn a_lost_link_has_a_banner_over_the_last_capture() {
    let mut state = state(DARK, 80, 24);
    send(&mut state, 10, running());
    send(&mut state, 11, lost());
    send(&mut state, 14, Event::Tick);
    let screen = screen_text(&state);
    insta::assert_snapshot!("lost", screen);
    press(&mut state, "3");
    assert!(
        screen_text(&state).contains("annotation"),
        "the capture stays browsable"
    );
    send(&mut state, 15, opened());
    let screen = screen_text(&state);
    assert!(
        !screen.contains("link lost") && screen.contains("the link is back"),
        "{screen}"
    );
}

#[test]
fn faults_of_the_machine_are_told_in_red() {
    let state = later_state(120, 40);
    let buffer = draw(&state);
    let line = text(&buffer).lines().nth(2).expect("a banner").to_owned();
    assert!(line.contains("problems: host-s2 at 0x48020000: "), "{line}");
    assert_eq!(buffer[(1, 2)].bg, Color::Rgb(184, 40, 0));
}

#[test]
fn a_screen_that_is_too_small_says_so() {
    for (width, height) in [(75, 24), (80, 15), (20, 2)] {
        let screen = screen_text(&state(DARK, width, height));
        assert!(
            screen.starts_with(&format!("{width}×{height} is too")),
            "{screen}"
        );
    }
    assert!(screen_text(&state(DARK, 76, 16)).contains("1 Map"));
}

#[test]
fn questions_and_filters_stand_in_the_status_line() {
    let mut state = state(DARK, 80, 24);
    press(&mut state, "ghost");
    insta::assert_snapshot!("goto", screen_text(&state));
    press(&mut state, "\x1b");
    press(&mut state, "w");
    assert!(screen_text(&state).contains("save a snapshot to: snapshot-1.core"));
    press(&mut state, "\x1b3/shared-owned 0x48028");
    let screen = screen_text(&state);
    assert!(screen.contains("filter: shared-owned 0x48028"), "{screen}");
    assert!(screen.contains("1 of 1 runs"), "{screen}");
}

#[test]
fn before_the_first_capture_the_screen_says_what_is_going_on() {
    let mut state = State::new(DARK, "fake", true);
    send(
        &mut state,
        0,
        Event::Terminal(TerminalEvent::Resize(80, 24)),
    );
    assert!(screen_text(&state).contains("waiting for the machine"));
    send(&mut state, 0, Event::Worker(Report::Working("capturing")));
    assert!(screen_text(&state).contains("reading the machine…"));
}

#[test]
fn a_machine_without_a_hypervisor_has_its_cpus() {
    let mut state = State::new(DARK, "fake", true);
    send(
        &mut state,
        0,
        Event::Terminal(TerminalEvent::Resize(120, 40)),
    );
    let mut fake = Fake::new();
    fake.bare = true;
    send(&mut state, 0, captured(&capture(&mut fake, None)));
    for (keys, words) in [
        ("1", "nothing is mapped"),
        ("2", "no translation"),
        ("6", "no lock"),
        ("8", "no hypervisor was found"),
    ] {
        press(&mut state, keys);
        let screen = screen_text(&state);
        assert!(screen.contains(words), "{screen}");
    }
    press(&mut state, "7");
    assert!(screen_text(&state).contains("VBAR_EL2"));
}
