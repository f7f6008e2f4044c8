include!(concat!(env!("OUT_DIR"), "/version.rs"));

fn main() {
    let name = std::env::args().nth(1).expect("a name");
    print!("{}, says {VERSION}", greeting::greet(&name));
}
