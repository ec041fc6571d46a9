//! The settings record.

use sagamore_decider::settings::{Settings, SettingsError};
use sagamore_fuzz::Target;

#[test]
fn settings_are_within_their_ranges_or_refused() {
    Target { name: "settings", cases: 30_000 }.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        match Settings::default().changed_by(&text) {
            Ok(settings) => {
                let whole = serde_json::to_string(&settings).unwrap();
                assert_eq!(serde_json::from_str::<Settings>(&whole).unwrap(), settings);
                assert_eq!(Settings::default().changed_by(&whole), Ok(settings), "{whole}");
            }
            Err(SettingsError::Document(cause)) => assert!(cause.len() > 5, "{cause}"),
            Err(error @ SettingsError::OutOfRange(name, value, _)) => {
                let told = error.to_string();
                assert!(told.contains(name) && told.contains(&value.to_string()), "{told}");
            }
        }
    });
}
