// Sockets that carry texts and descriptors.
#include "sys/unix_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

namespace tbt::sys {
namespace {

class UnixSocket : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    path = folder + "/s";
  }
  void TearDown() override {
    ::unlink(path.c_str());
    ::rmdir(folder.c_str());
  }
  void connect_both() {
    listener = std::move(listen_seqpacket(path, 4)).value();
    near_end = std::move(connect_seqpacket(path)).value();
    far_end = std::move(accept_seqpacket(listener.get())).value();
  }

  std::string folder = "/tmp/tbt_sockets_XXXXXX";
  std::string path;
  UniqueFd listener, near_end, far_end;
};

TEST_F(UnixSocket, TextAndDescriptorsArriveTogether) {
  connect_both();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const UniqueFd read_end(ends[0]), write_end(ends[1]);
  const std::array<int, 2> sent{read_end.get(), write_end.get()};
  ASSERT_TRUE(send_message(near_end.get(), "hello", sent));
  auto message = receive_message(far_end.get(), 1000);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->text, "hello");
  ASSERT_EQ(message->fds.size(), 2u);
  EXPECT_NE(::fcntl(message->fds[0].get(), F_GETFD) & FD_CLOEXEC, 0);
  ASSERT_EQ(::write(message->fds[1].get(), "x", 1), 1);
  char c = 0;
  EXPECT_EQ(::read(read_end.get(), &c, 1), 1);
  EXPECT_EQ(c, 'x');
}

TEST_F(UnixSocket, MessagesKeepTheirBounds) {
  connect_both();
  ASSERT_TRUE(send_message(near_end.get(), "one", {}));
  ASSERT_TRUE(send_message(near_end.get(), "two", {}));
  EXPECT_EQ(receive_message(far_end.get(), 1000)->text, "one");
  EXPECT_EQ(receive_message(far_end.get(), 1000)->text, "two");
}

TEST_F(UnixSocket, TheSocketIsItsOwnersAlone) {
  listener = std::move(listen_seqpacket(path, 4)).value();
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
  EXPECT_EQ(listen_seqpacket(path, 4).error().code(), EADDRINUSE);
}

TEST_F(UnixSocket, WhatIsNotThereIsToldFromWhatIsDead) {
  EXPECT_EQ(connect_seqpacket(path).error().code(), ENOENT);
  listener = std::move(listen_seqpacket(path, 4)).value();
  listener.reset();
  EXPECT_EQ(connect_seqpacket(path).error().code(), ECONNREFUSED);
  EXPECT_EQ(connect_seqpacket(std::string(200, 'x')).error().code(), ENAMETOOLONG);
}

TEST_F(UnixSocket, TheEndOfTheOtherSideIsSeen) {
  connect_both();
  near_end.reset();
  EXPECT_EQ(receive_message(far_end.get(), 1000).error().code(), EPIPE);
  EXPECT_EQ(send_message(far_end.get(), "x", {}).code(), EPIPE);
}

TEST_F(UnixSocket, AnAnswerGivenBeforeTheQuestionWasReadIsHeard) {
  connect_both();
  ASSERT_TRUE(send_message(near_end.get(), "question", {}));
  ASSERT_TRUE(send_message(far_end.get(), "go away", {}));
  far_end.reset();
  EXPECT_EQ(exchange(near_end.get(), "question", 1000)->text, "go away");
}

TEST_F(UnixSocket, WaitingIsBounded) {
  connect_both();
  EXPECT_EQ(receive_message(far_end.get(), 0).error().code(), EAGAIN);
  EXPECT_EQ(receive_message(far_end.get(), 20).error().code(), ETIMEDOUT);
}

TEST_F(UnixSocket, AReaderThatDoesNotReadIsNotWaitedFor) {
  connect_both();
  const std::string text(kMessageBytesMax, 'x');
  Status last;
  for (int i = 0; i < 100 && last; i++) last = send_message(near_end.get(), text, {});
  EXPECT_EQ(last.code(), EAGAIN);
}

TEST_F(UnixSocket, AMessageTooLongIsRefusedAtBothEnds) {
  connect_both();
  const std::string text(kMessageBytesMax + 1, 'x');
  EXPECT_EQ(send_message(near_end.get(), text, {}).code(), EMSGSIZE);
  ASSERT_EQ(::send(near_end.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  EXPECT_EQ(receive_message(far_end.get(), 1000).error().code(), EMSGSIZE);
}

TEST_F(UnixSocket, DescriptorsForWhichThereIsNoRoomAreAnError) {
  connect_both();
  const std::array<int, 8> sent{0, 0, 0, 0, 0, 0, 0, 0};
  ASSERT_TRUE(send_message(near_end.get(), "x", sent));
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  const rlimit tight{static_cast<rlim_t>(far_end.get()) + 3, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  const auto message = receive_message(far_end.get(), 1000);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
  EXPECT_EQ(message.error().code(), EMFILE);
}

TEST_F(UnixSocket, TheOtherSideIsKnown) {
  connect_both();
  const auto who = peer_credentials(far_end.get());
  ASSERT_TRUE(who);
  EXPECT_EQ(who.value().pid, ::getpid());
  EXPECT_EQ(who.value().uid, ::geteuid());
}

// ---- byte streams

class UnixStream : public UnixSocket {
 protected:
  void SetUp() override {
    UnixSocket::SetUp();
    listener = std::move(listen_stream(path, 1)).value();
    near_end = std::move(connect_stream(path)).value();
    far_end = std::move(accept_seqpacket(listener.get())).value();
  }
  Result<size_t> receive(size_t room) {
    bytes.resize(room);
    auto n = receive_bytes(far_end.get(), bytes, fds);
    if (n) bytes.resize(n.value());
    return n;
  }
  std::vector<std::byte> bytes;
  std::vector<UniqueFd> fds;
};

TEST_F(UnixStream, BytesArriveInOrderAndDescriptorsWithTheFirst) {
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
  EXPECT_EQ(receive(1).error().code(), EAGAIN);
  const std::array<std::byte, 3> sent{std::byte{1}, std::byte{2}, std::byte{3}};
  const int fd = listener.get();
  ASSERT_TRUE(send_bytes(near_end.get(), sent, {&fd, 1}, 0));
  ASSERT_TRUE(receive(2));
  EXPECT_EQ(bytes, (std::vector{std::byte{1}, std::byte{2}}));
  ASSERT_EQ(fds.size(), 1u);
  EXPECT_NE(::fcntl(fds[0].get(), F_GETFD) & FD_CLOEXEC, 0);
  ASSERT_TRUE(receive(8));
  EXPECT_EQ(bytes, std::vector{std::byte{3}});
  EXPECT_EQ(fds.size(), 1u);
  near_end.reset();
  EXPECT_EQ(receive(1).error().code(), EPIPE);
}

TEST_F(UnixStream, WhoDoesNotReadIsNotWaitedForLong) {
  const std::vector<std::byte> much(4 << 20);
  EXPECT_EQ(send_bytes(near_end.get(), much, {}, 10).code(), ETIMEDOUT);
  far_end.reset();
  EXPECT_EQ(send_bytes(near_end.get(), much, {}, 10).code(), EPIPE);
}

}  // namespace
}  // namespace tbt::sys
