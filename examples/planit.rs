//! quick trial
use regraft::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let src = store::open(&args[1], &store::OpenOptions::default()).unwrap();
    use regraft::store::Store;
    let t=std::time::Instant::now();
    let rules = match load(&args[2]) { Ok(r)=>r, Err(library::LoadError::Rules(d))=>{eprintln!("{}", diagnostic::render_all(&d.0,false)); std::process::exit(2)}, Err(e)=>panic!("{e}") };
    let dir = if args.get(3).map(|s| s=="rev").unwrap_or(false) {Direction::Reverse} else {Direction::Forward};
    let route = Route::named(vec![rules], None, None, dir==Direction::Reverse).unwrap();
    eprintln!("load {:?}", t.elapsed());
    let t=std::time::Instant::now();
    match plan(&route.stages(), src.header(), &PlanOptions::default()) {
        Ok(p) => { eprintln!("plan {:?} targets {} nodes {} verdict {:?}", t.elapsed(), p.targets.len(), p.nodes.len(), p.verdict);
          for f in &p.findings { eprintln!("{}", diagnostic::render(f,false)); }
          for t in p.targets.iter().take(20) { println!("{} {:?}", t.key, p.info(t)); } }
        Err(d) => { eprintln!("{}", diagnostic::render_all(&d.0,false)); }
    }
}
