// Daemons: what they inherit, and how failures to start them are told.
#include "sys/spawn.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "sys/unique_fd.h"

namespace tbt::sys {
namespace {

class Spawn : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    options.log_path = folder + "/log";
    options.program = "/bin/sh";
  }
  void TearDown() override {
    ::unlink(options.log_path.c_str());
    ::rmdir(folder.c_str());
  }
  // Runs a shell script to its end; returns what it printed.
  std::string run(const std::string& script) {
    options.arguments = {"-c", script};
    const auto pid = spawn_daemon(options);
    EXPECT_TRUE(pid) << pid.error().text();
    if (!pid) return "";
    EXPECT_EQ(::waitpid(pid.value(), nullptr, 0), pid.value());
    std::stringstream text;
    text << std::ifstream(options.log_path).rdbuf();
    return text.str();
  }
  std::string folder = "/tmp/tbt_spawn_XXXXXX";
  SpawnOptions options;
};

TEST_F(Spawn, InheritsExactlyTheDescriptorsItWasGiven) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const UniqueFd read_end(ends[0]), write_end(ends[1]);
  const UniqueFd stray(::dup(0));  // not close-on-exec
  options.fds = {write_end.get(), read_end.get()};
  // Looked at by name: listing the folder would open one more.
  EXPECT_EQ(run("echo through >&3; read word <&4; echo $word; i=0; while [ $i -lt 30 ]; do "
                "[ -e /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done; true"),
            "through\n0\n1\n2\n3\n4\n");
}

TEST_F(Spawn, TheOrderOfTheDescriptorsIsTheCallersWhateverTheirNumbers) {
  std::vector<UniqueFd> pipes;
  for (int i = 0; i < 4; i++) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ASSERT_EQ(::write(ends[1], &"0\n1\n2\n3\n"[2 * i], 2), 2);
    ::close(ends[1]);
    pipes.emplace_back(ends[0]);
  }
  for (size_t i = pipes.size(); i-- > 0;) options.fds.push_back(pipes[i].get());
  EXPECT_EQ(run("cat <&3; cat <&4; cat <&5; cat <&6"), "3\n2\n1\n0\n");
}

TEST_F(Spawn, IsASessionOfItsOwnWithoutInput) {
  const std::string out = run("cut -d' ' -f6 /proc/$$/stat; echo $$; cat");
  std::istringstream words(out);
  std::string session, pid, more;
  words >> session >> pid;
  EXPECT_EQ(session, pid);
  EXPECT_FALSE(words >> more);
}

TEST_F(Spawn, AProgramThatIsNotThereIsAnErrorAtOnce) {
  options.program = folder + "/nothing";
  EXPECT_EQ(spawn_daemon(options).error().code(), ENOENT);
  options.program = "/etc/passwd";
  EXPECT_EQ(spawn_daemon(options).error().code(), EACCES);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);  // no child is left
}

TEST_F(Spawn, ALogThatCannotBeMadeIsAnError) {
  const std::string good = options.log_path;
  options.log_path = folder + "/no/log";
  EXPECT_EQ(spawn_daemon(options).error().code(), ENOENT);
  options.log_path = good;
}

}  // namespace
}  // namespace tbt::sys
