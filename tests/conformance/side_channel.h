// The TCP connection over which two copies of a test program exchange addresses and meet, as
// ibv_rc_pingpong does.
#pragma once

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace shape {

// A test program that cannot go on says why and ends.
[[noreturn, gnu::format(printf, 1, 2)]] inline void die(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::exit(1);
}

class SideChannel {
 public:
  SideChannel(const SideChannel&) = delete;
  SideChannel& operator=(const SideChannel&) = delete;
  ~SideChannel() { close(fd_); }

  // Waits for the one client.
  static SideChannel serve(const char* port) {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(std::atoi(port)));
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        listen(listener, 1) != 0) {
      die("listen on port %s: %s", port, std::strerror(errno));
    }
    const int fd = accept(listener, nullptr, nullptr);
    close(listener);
    if (fd < 0) die("accept: %s", std::strerror(errno));
    return SideChannel(fd);
  }

  // The server may not listen yet.
  static SideChannel connect_to(const char* host, const char* port) {
    addrinfo hints{};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(host, port, &hints, &found) != 0) die("no such host: %s", host);
    for (int attempt = 0; attempt < 100; ++attempt) {
      const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (connect(fd, found->ai_addr, found->ai_addrlen) == 0) {
        freeaddrinfo(found);
        return SideChannel(fd);
      }
      close(fd);
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    die("connect to %s:%s: %s", host, port, std::strerror(errno));
  }

  // Sends ours, returns theirs.
  template <typename T>
  T exchange(const T& mine) {
    T theirs{};
    if (send(fd_, &mine, sizeof mine, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof mine) ||
        recv(fd_, &theirs, sizeof theirs, MSG_WAITALL) != static_cast<ssize_t>(sizeof theirs)) {
      die("the peer is gone");
    }
    return theirs;
  }

  void meet() { exchange(char{'m'}); }

 private:
  explicit SideChannel(int fd) : fd_(fd) {}
  int fd_;
};

// `prog server PORT` or `prog client HOST PORT`, each with an optional device name behind.
struct Arguments {
  bool server = false;
  const char* host = nullptr;
  const char* port = nullptr;
  const char* device = "tbt0";
};

inline Arguments parse(int argc, char** argv) {
  Arguments arguments;
  arguments.server = argc >= 3 && std::strcmp(argv[1], "server") == 0;
  const bool client = argc >= 4 && std::strcmp(argv[1], "client") == 0;
  if (!arguments.server && !client)
    die("usage: %s server PORT | client HOST PORT [DEVICE]", argv[0]);
  const int port_at = client ? 3 : 2;
  if (client) arguments.host = argv[2];
  arguments.port = argv[port_at];
  if (argc > port_at + 1) arguments.device = argv[port_at + 1];
  return arguments;
}

inline SideChannel connect(const Arguments& arguments) {
  return arguments.server ? SideChannel::serve(arguments.port)
                          : SideChannel::connect_to(arguments.host, arguments.port);
}

// Nothing may hang: a wait that takes this long is a failure.
class Deadline {
 public:
  void check(const char* what) const {
    if (std::chrono::steady_clock::now() > end_) die("timed out: %s", what);
  }

 private:
  std::chrono::steady_clock::time_point end_ =
      std::chrono::steady_clock::now() + std::chrono::seconds(30);
};

}  // namespace shape
