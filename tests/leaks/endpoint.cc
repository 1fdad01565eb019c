// One end of the tests for leaks: a plain verbs program that connects to another one and
// disconnects again, over and over, and says after each time what it still has.
//
//   leak_endpoint near SOCKET     connects to SOCKET, where the far end listens, and leads
//   leak_endpoint far SOCKET
//
// Lines in, lines out:
//   run CYCLES ROUNDS   (near) so many cycles of so many messages; 0: until `halt`
//   serve               (far) until the near end has run them
//   halt                (near) after this cycle
//     -> ran CYCLES FAILED FDS MAPS HEAP SKIPPED
//     -> lost CYCLES FAILED FDS MAPS HEAP SKIPPED     the other end is gone
//   look
//     -> look FDS MAPS HEAP
// FDS: open descriptors; MAPS: mappings of shared memory; HEAP: bytes in use; SKIPPED: QPNs that
// were not given out when it was their turn, which says that an old pair still has them.
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <dirent.h>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#include "objects.h"

namespace {

using namespace tbt::leaks;

constexpr uint32_t kQpnMask = 0x3ffff;  // the rest says which process
constexpr time_t kStuckSeconds = 20;
constexpr uint64_t kSent = 1000;  // wr_ids of sends; receives have their slot

struct Order {         // what the near end tells the far one before each cycle
  uint64_t cycle = 0;  // 0: no more
  uint64_t rounds = 0;
};

size_t count_descriptors() {
  DIR* folder = opendir("/proc/self/fd");
  size_t count = 0;
  while (folder != nullptr && readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count - 3;  // itself, and the two dots
}

// Without the C library's streams: they would allocate.
size_t count_shared_mappings() {
  const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  std::string text;
  char part[4096];
  for (ssize_t n = 0; (n = read(fd, part, sizeof part)) > 0;) text.append(part, size_t(n));
  close(fd);
  size_t count = 0;
  for (size_t at = 0; (at = text.find("/memfd:", at)) != std::string::npos; ++at) ++count;
  return count;
}

class Endpoint {
 public:
  Endpoint(bool near, const char* path) : near_(near), path_(path) {
    ibv_device** list = ibv_get_device_list(nullptr);
    for (ibv_device** d = list; d != nullptr && *d != nullptr; ++d) {
      if (std::strcmp(ibv_get_device_name(*d), "tbt0") == 0) context_ = ibv_open_device(*d);
    }
    if (context_ == nullptr) die("open tbt0", errno);
    ibv_free_device_list(list);
    memory_ = static_cast<std::byte*>(std::aligned_alloc(4096, kMemoryBytes));
    if (!near_) listen_at();
  }

  void run(uint64_t cycles, uint64_t rounds) {
    uint64_t ran = 0;
    bool there = meet();
    while (there && (cycles == 0 || ran < cycles) && !told_to_halt()) {
      there = tell(Order{++cycle_, rounds}) && cycle(rounds);
      ++ran;
    }
    if (there) there = tell(Order{});
    report(there, ran);
  }

  void serve() {
    uint64_t ran = 0;
    Order order;
    bool there = meet();
    while (there && (there = hear(order)) && order.cycle != 0) {
      cycle_ = order.cycle;
      there = cycle(order.rounds);
      ++ran;
    }
    report(there, ran);
  }

  void look() { print("look"); }

 private:
  [[nodiscard]] sockaddr_un address() const {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    std::snprintf(at.sun_path, sizeof at.sun_path, "%s", path_);
    return at;
  }
  void listen_at() {
    unlink(path_);
    const sockaddr_un at = address();
    door_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(door_, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) die("bind", errno);
    if (listen(door_, 1) != 0) die("listen", errno);
  }
  // The other end may have been started anew.
  bool meet() {
    if (peer_ >= 0) return true;
    const sockaddr_un at = address();
    for (int i = 0; i < 5000 && near_; ++i, usleep(1000)) {
      peer_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (::connect(peer_, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0) return true;
      close(peer_);
      peer_ = -1;
    }
    if (!near_) peer_ = accept4(door_, nullptr, nullptr, SOCK_CLOEXEC);
    return peer_ >= 0;
  }
  template <typename T>
  bool tell(const T& what) {
    return send(peer_, &what, sizeof what, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof what);
  }
  template <typename T>
  bool hear(T& what) {
    return recv(peer_, &what, sizeof what, MSG_WAITALL) == static_cast<ssize_t>(sizeof what);
  }
  // The other end has failed, or is gone.
  [[nodiscard]] bool heard_bad_news() const {
    uint8_t good = 0;
    const ssize_t n = recv(peer_, &good, sizeof good, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n == 1 && good == 0);
  }
  static bool told_to_halt() {
    pollfd waiting{STDIN_FILENO, POLLIN, 0};
    return ::poll(&waiting, 1, 0) > 0;
  }

  // False if the other end is gone.
  bool cycle(uint64_t rounds) {
    Objects objects(context_, cycle_);
    objects.make(memory_);
    watch_numbers(objects);
    for (uint32_t i = 0; i < 2; ++i) objects.post_receive(i);
    PeerInfo peer;
    bool there = tell(objects.info()) && hear(peer);
    uint8_t good = there && objects.connect(peer) ? 1 : 0;
    uint8_t other = 0;
    there = there && tell(good) && hear(other);
    good &= other;
    for (uint64_t round = 0; there && good != 0 && round < rounds; ++round) {
      good = exchange(objects, peer, round) ? 1 : 0;
      there = tell(good) && hear(other);
      good &= other;
    }
    if (!there || good == 0) ++failed_;
    objects.destroy();
    return there;
  }

  void watch_numbers(const Objects& objects) {
    for (const uint32_t number : objects.numbers()) {
      if (last_number_ != 0) skipped_ += (number - last_number_ - 1) & kQpnMask;
      last_number_ = number;
    }
  }

  void post(Objects& objects, const PeerInfo& peer, ibv_wr_opcode opcode, uint32_t from,
            uint32_t bytes) {
    ibv_sge what{reinterpret_cast<uintptr_t>(memory_) + from, bytes, objects.mr()->lkey};
    ibv_send_wr wr{};
    wr.wr_id = kSent;
    wr.sg_list = &what;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
      wr.wr.atomic.remote_addr = peer.addr + 2 * kBulkBytes;
      wr.wr.atomic.rkey = peer.rkey;
      wr.wr.atomic.compare_add = 1;
    } else {
      wr.wr.rdma.remote_addr = peer.addr + kBulkBytes;
      wr.wr.rdma.rkey = peer.rkey;
    }
    ibv_send_wr* bad = nullptr;
    const int code = ibv_post_send(objects.qp(), &wr, &bad);
    if (code != 0) die("post_send", code);
  }

  // WRITE to the peer's second part, READ that back, an atomic, and a SEND that says it is there.
  //   memory: what is written | what the peer writes | the peer's counter, what is read | receives
  bool exchange(Objects& objects, const PeerInfo& peer, uint64_t round) {
    const int mark = static_cast<int>((cycle_ * 7 + round) & 0xff);
    std::memset(memory_, mark, kBulkBytes);
    post(objects, peer, IBV_WR_RDMA_WRITE, 0, kBulkBytes);
    post(objects, peer, IBV_WR_RDMA_READ, 2 * kBulkBytes + 64, kPart);
    post(objects, peer, IBV_WR_ATOMIC_FETCH_AND_ADD, 2 * kBulkBytes + 8, 8);
    post(objects, peer, IBV_WR_SEND, 0, 64);
    if (!collect(objects, 4, 1)) return false;
    const std::byte want{static_cast<unsigned char>(mark)};
    for (const uint32_t at :
         {kBulkBytes, 2 * kBulkBytes - 1, 2 * kBulkBytes + 64, 2 * kBulkBytes + 63 + kPart}) {
      if (memory_[at] != want) die("wrong bytes", EPROTO);
    }
    return true;
  }

  // False if one of them failed, or the other end says so.
  bool collect(Objects& objects, uint32_t sends, uint32_t receives) {
    const time_t end = std::time(nullptr) + kStuckSeconds;
    while (sends + receives != 0) {
      ibv_wc wc;
      if (objects.poll(wc) == 0) {
        if (heard_bad_news()) return false;
        if (std::time(nullptr) > end) die("nothing completes", ETIMEDOUT);
        continue;
      }
      if (wc.status != IBV_WC_SUCCESS) return false;
      if (wc.wr_id == kSent) {
        --sends;
      } else {
        --receives;
        objects.post_receive(static_cast<uint32_t>(wc.wr_id));
      }
    }
    return true;
  }

  void report(bool there, uint64_t ran) {
    if (!there && peer_ >= 0) {
      close(peer_);
      peer_ = -1;
    }
    std::printf("%s %llu %llu ", there ? "ran" : "lost", static_cast<unsigned long long>(ran),
                static_cast<unsigned long long>(failed_));
    print(nullptr);
    failed_ = skipped_ = 0;
  }

  void print(const char* word) const {
    if (word != nullptr) std::printf("%s ", word);
    std::printf("%zu %zu ", count_descriptors() - (peer_ >= 0 ? 1 : 0), count_shared_mappings());
    std::printf("%zu %llu\n", mallinfo2().uordblks, static_cast<unsigned long long>(skipped_));
    std::fflush(stdout);
  }

  bool near_;
  const char* path_;
  ibv_context* context_ = nullptr;
  std::byte* memory_ = nullptr;
  int door_ = -1, peer_ = -1;
  uint64_t cycle_ = 0, failed_ = 0, skipped_ = 0;
  uint32_t last_number_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  static char output[4096];
  static char input[4096];
  std::setvbuf(stdout, output, _IOFBF, sizeof output);
  std::setvbuf(stdin, input, _IONBF, 0);  // so that poll() sees what was not read yet
  Endpoint endpoint(std::strcmp(argv[1], "near") == 0, argv[2]);
  std::printf("ready\n");
  std::fflush(stdout);
  char line[128];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    unsigned long long cycles = 0, rounds = 0;
    if (std::sscanf(line, "run %llu %llu", &cycles, &rounds) == 2) {
      endpoint.run(cycles, rounds);
    } else if (std::strcmp(line, "serve\n") == 0) {
      endpoint.serve();
    } else if (std::strcmp(line, "look\n") == 0) {
      endpoint.look();
    }  // `halt` ended a run already
  }
  return 0;
}
