//! Dates for templates that print one: the part of `strftime` that they use.

use minijinja::{Error, ErrorKind};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const DAY: i64 = 86_400;

/// Formats a moment in UTC, given in seconds since 1970.
pub(crate) fn format(now: i64, pattern: &str) -> Result<String, Error> {
    if pattern.len() > 256 {
        return Err(Error::new(ErrorKind::InvalidOperation, "a date format of more than 256 bytes"));
    }
    // Years 1 to 9999, as Python's dates.
    let now = now.clamp(-62_135_596_800, 253_402_300_799);
    let (days, second) = (now.div_euclid(DAY), now.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let name = |names: &[&str], at: i64| {
        usize::try_from(at).ok().and_then(|at| names.get(at)).copied().unwrap_or_default().to_owned()
    };
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let half_day = if hour % 12 == 0 { 12 } else { hour % 12 };
    let short = |text: String| text.chars().take(3).collect::<String>();
    let weekday = (days + 4).rem_euclid(7);
    let mut out = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut code = letters.next();
        let bare = code == Some('-');
        if bare {
            code = letters.next();
        }
        let two = |n: i64| if bare { n.to_string() } else { format!("{n:02}") };
        out.push_str(&match code {
            Some('Y') => format!("{year:04}"),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('e') => format!("{day:2}"),
            Some('H') => two(hour),
            Some('I') => two(half_day),
            Some('M') => two(minute),
            Some('S') => two(second % 60),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('B') => name(&MONTHS, month - 1),
            Some('b' | 'h') => short(name(&MONTHS, month - 1)),
            Some('A') => name(&DAYS, weekday),
            Some('a') => short(name(&DAYS, weekday)),
            Some('F') => format!("{year:04}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{:02}", second % 60),
            Some('Z') => "UTC".to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                let words = format!("date format code %{} is not supported", other.unwrap_or(' '));
                return Err(Error::new(ErrorKind::InvalidOperation, words));
            }
        });
    }
    Ok(out)
}

/// Year, month and day of a day since 1970, in the Gregorian calendar counted on in both directions. The year
/// is taken to begin in March, so that the leap day is its last.
fn civil(days: i64) -> (i64, i64, i64) {
    let from_zero = days + 719_468;
    let era = from_zero.div_euclid(146_097);
    let day_of_era = from_zero.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
