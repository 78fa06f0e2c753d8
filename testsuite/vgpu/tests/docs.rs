//! `forms.md` lists the forms that are known.

use sinter_vgpu::forms;

#[test]
fn the_documentation_lists_the_forms() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/forms.md");
    let text = std::fs::read_to_string(path).expect("the page");
    let (before, rest) = text.split_once("```forms\n").expect("a list of forms");
    let (list, after) = rest.split_once("```\n").expect("the end of the list");
    let wanted: String = forms::known().iter().map(|form| format!("{form}\n")).collect();
    if list != wanted && std::env::var_os("BLESS").is_some() {
        std::fs::write(path, format!("{before}```forms\n{wanted}```\n{after}")).expect("a written page");
        return;
    }
    assert!(list == wanted, "forms.md is out of date; BLESS=1 rewrites its list");
}
