# For a tap: built from source, as Homebrew does where it has no bottle. A release puts its checksum in.
class Regraft < Formula
  desc "Declarative state-dict rewrite engine for checkpoints"
  homepage "https://github.com/regraft/regraft"
  url "https://github.com/regraft/regraft/archive/refs/tags/v0.1.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    generate_completions_from_executable(bin/"regraft", "completions")
  end

  test do
    (testpath/"a.graft").write "rename \"a.**\" <-> \"b.**\"\n"
    system bin/"regraft", "check", "a.graft"
  end
end
