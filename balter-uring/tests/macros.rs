//! The attributes as the compiler sees them: what they accept, and what they say to what they do
//! not.

#[test]
fn the_attributes_accept_and_refuse_what_they_say() {
    let cases = trybuild::TestCases::new();
    cases.pass("../balter-macros/tests/ui/pass/*.rs");
    cases.compile_fail("../balter-macros/tests/ui/fail/*.rs");
}
