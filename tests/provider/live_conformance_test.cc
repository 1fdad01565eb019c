// Numbers of docs/conformance.md that need the whole transport: memory and its registration,
// destruction under traffic, overflow, counters.
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <atomic>
#include <fstream>
#include <set>

#include "live.h"

#undef ibv_reg_mr

namespace tbt::provider_live {
namespace {

using std::chrono::milliseconds;

// Pages of their own, unmapped at the end.
struct Pages {
  explicit Pages(size_t size) : bytes(size) {
    at = static_cast<uint8_t*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  ~Pages() { munmap(at, bytes); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  [[nodiscard]] bool all(uint8_t value) const {
    for (size_t i = 0; i < bytes; ++i) {
      if (static_cast<volatile uint8_t*>(at)[i] != value) return false;
    }
    return true;
  }
  uint8_t* at;
  size_t bytes;
};

std::string status_line(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return line;
  }
  return {};
}

class Conformance : public LiveTest {
 protected:
  int post_rdma(ibv_qp* qp, ibv_wr_opcode opcode, uint64_t wr_id, ibv_sge local, const void* remote,
                uint32_t rkey) {
    ibv_send_wr wr{};
    wr.wr_id = wr_id;
    wr.sg_list = &local;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma = {.remote_addr = reinterpret_cast<uintptr_t>(remote), .rkey = rkey};
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(qp, &wr, &bad);
  }
  // Counts events of a type for some time, acknowledging all.
  int events_within(ibv_event_type type, int ms) {
    int count = 0;
    pollfd p{.fd = context->async_fd, .events = POLLIN, .revents = 0};
    while (poll(&p, 1, ms) == 1) {
      ibv_async_event event;
      if (ibv_get_async_event(context, &event) != 0) break;
      count += event.event_type == type ? 1 : 0;
      ibv_ack_async_event(&event);
    }
    return count;
  }
  ibv_qp_state state_of(ibv_qp* qp) {
    ibv_qp_attr attr;
    ibv_qp_init_attr init;
    EXPECT_EQ(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init), 0);
    return attr.qp_state;
  }
  void destroy(ibv_qp* qp) {
    EXPECT_EQ(ibv_destroy_qp(qp), 0);
    std::erase(qps, qp);
  }
};

TEST_F(Conformance, C004_NothingIsPinnedSoTheLimitDoesNotMatter) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &none), 0);
  const std::string locked = status_line("VmLck");
  const std::string pinned = status_line("VmPin");
  Pages pages(8 << 20);
  ibv_mr* large = ibv_reg_mr(pd, pages.at, pages.bytes, IBV_ACCESS_LOCAL_WRITE);
  EXPECT_NE(large, nullptr) << errno;
  EXPECT_EQ(status_line("VmLck"), locked);
  EXPECT_EQ(status_line("VmPin"), pinned);
  if (large != nullptr) {
    EXPECT_EQ(ibv_dereg_mr(large), 0);
  }
  EXPECT_EQ(setrlimit(RLIMIT_MEMLOCK, &before), 0);
}

TEST_F(Conformance, C005_ReadOnlyMemoryCanBeSentAndRead) {
  Pages constant(4096);
  for (size_t i = 0; i < 4096; ++i) constant.at[i] = static_cast<uint8_t>(i * 7);
  ASSERT_EQ(mprotect(constant.at, 4096, PROT_READ), 0);
  ibv_mr* readable = ibv_reg_mr(pd, constant.at, 4096, IBV_ACCESS_REMOTE_READ);
  ASSERT_NE(readable, nullptr);
  ibv_qp* a = make_qp({});
  ibv_qp* b = make_qp({});
  connect(a, b);
  const ibv_sge source{reinterpret_cast<uintptr_t>(constant.at), 4096, readable->lkey};
  ASSERT_EQ(post_recv(b, 1, sge(0, 4096)), 0);
  ASSERT_EQ(post_send(a, 2, source), 0);
  ASSERT_EQ(post_rdma(a, IBV_WR_RDMA_WRITE, 3, source, memory + 8192, mr->rkey), 0);
  ASSERT_EQ(post_rdma(a, IBV_WR_RDMA_READ, 4, sge(16384, 4096), constant.at, readable->rkey), 0);
  const auto done = completions(cq, 4);
  ASSERT_EQ(done.size(), 4u);
  for (const ibv_wc& wc : done) EXPECT_EQ(wc.status, IBV_WC_SUCCESS) << wc.wr_id;
  for (size_t offset : {0, 8192, 16384})
    EXPECT_EQ(std::memcmp(memory + offset, constant.at, 4096), 0) << offset;
  // Into it: nobody may.
  ASSERT_EQ(post_rdma(a, IBV_WR_RDMA_WRITE, 5, sge(0, 8), constant.at, readable->rkey), 0);
  EXPECT_EQ(completions(cq, 1).at(0).status, IBV_WC_REM_ACCESS_ERR);
  EXPECT_EQ(ibv_dereg_mr(readable), 0);
}

TEST_F(Conformance, C006_EachKindOfObjectHoldsItsProtectionDomain) {
  ibv_pd* other = ibv_alloc_pd(context);
  ibv_mr* region = ibv_reg_mr(other, memory, 64, 0);
  ASSERT_NE(region, nullptr);
  EXPECT_EQ(ibv_dealloc_pd(other), EBUSY);
  EXPECT_EQ(ibv_dereg_mr(region), 0);
  ibv_ah_attr where{};
  where.port_num = 1;
  where.dlid = lid;
  ibv_ah* ah = ibv_create_ah(other, &where);
  ASSERT_NE(ah, nullptr);
  EXPECT_EQ(ibv_dealloc_pd(other), EBUSY);
  EXPECT_EQ(ibv_destroy_ah(ah), 0);
  ibv_srq_init_attr attr{};
  attr.attr = {.max_wr = 8, .max_sge = 1, .srq_limit = 0};
  ibv_srq* srq = ibv_create_srq(other, &attr);
  ASSERT_NE(srq, nullptr);
  EXPECT_EQ(ibv_dealloc_pd(other), EBUSY);
  EXPECT_EQ(ibv_destroy_srq(srq), 0);
  std::swap(pd, other);
  ibv_qp* qp = make_qp({});
  std::swap(pd, other);
  ASSERT_NE(qp, nullptr);
  EXPECT_EQ(ibv_dealloc_pd(other), EBUSY);
  destroy(qp);
  EXPECT_EQ(ibv_dealloc_pd(other), 0);
}

TEST_F(Conformance, C010_ThereIsNoMulticast) {
  ibv_qp* qp = make_qp({.type = IBV_QPT_UD});
  ibv_gid gid{};
  gid.raw[0] = 0xff;
  EXPECT_EQ(ibv_attach_mcast(qp, &gid, 0xc001), EOPNOTSUPP);
  EXPECT_EQ(ibv_detach_mcast(qp, &gid, 0xc001), EOPNOTSUPP);
}

// The peer goes on writing, and so do the answers to what the pair asked for; when destroy has
// returned, all of that is over.
TEST_F(Conformance, C015_ADestroyedQpWritesNothing) {
  Pages written(64 << 10);
  Pages read_into(64 << 10);
  const int all = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
  ibv_mr* target = ibv_reg_mr(pd, written.at, written.bytes, all);
  ibv_mr* into = ibv_reg_mr(pd, read_into.at, read_into.bytes, IBV_ACCESS_LOCAL_WRITE);
  ASSERT_TRUE(target != nullptr && into != nullptr);
  const ibv_sge whole{reinterpret_cast<uintptr_t>(read_into.at),
                      static_cast<uint32_t>(read_into.bytes), into->lkey};
  for (int round = 0; round < 10; ++round) {
    ibv_cq* cq_of_a = ibv_create_cq(context, 64, nullptr, nullptr, 0);
    ibv_qp* a = make_qp({.cq = cq_of_a});
    ibv_qp* b = make_qp({});
    connect(a, b);
    std::memset(memory, 0xee, sizeof memory);
    std::atomic<bool> stop{false};
    std::atomic<int> done{0};
    std::thread writer([&] {
      ibv_wc wc;
      while (!stop) {
        (void)post_rdma(a, IBV_WR_RDMA_WRITE, 1, sge(0, sizeof memory), written.at, target->rkey);
        if (ibv_poll_cq(cq_of_a, 1, &wc) == 1 && wc.status == IBV_WC_SUCCESS) ++done;
      }
    });
    for (int i = 0; i < 4; ++i)
      ASSERT_EQ(post_rdma(b, IBV_WR_RDMA_READ, 2, whole, memory, mr->rkey), 0);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (done == 0 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    EXPECT_NE(done, 0);
    destroy(b);
    std::memset(written.at, 0x11, written.bytes);
    std::memset(read_into.at, 0x22, read_into.bytes);
    std::this_thread::sleep_for(milliseconds(30));
    EXPECT_TRUE(written.all(0x11)) << "round " << round;
    EXPECT_TRUE(read_into.all(0x22)) << "round " << round;
    stop = true;
    writer.join();
    destroy(a);
    EXPECT_EQ(ibv_destroy_cq(cq_of_a), 0);
  }
  EXPECT_EQ(ibv_dereg_mr(target), 0);
  EXPECT_EQ(ibv_dereg_mr(into), 0);
}

// The pages behind the region are another mapping at once.
TEST_F(Conformance, C124_DeregisteredMemoryIsNotTouched) {
  for (int round = 0; round < 10; ++round) {
    Pages pages(64 << 10);
    ibv_mr* target =
        ibv_reg_mr(pd, pages.at, pages.bytes, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    ASSERT_NE(target, nullptr);
    ibv_qp* a = make_qp({});
    ibv_qp* b = make_qp({});
    connect(a, b);
    std::memset(memory, 0xee, sizeof memory);
    std::atomic<bool> stop{false};
    std::atomic<int> done{0};
    std::atomic<int> refused{0};
    const uint32_t rkey = target->rkey;
    std::thread writer([&] {
      ibv_wc wc;
      while (!stop) {
        (void)post_rdma(a, IBV_WR_RDMA_WRITE, 1, sge(0, sizeof memory), pages.at, rkey);
        if (ibv_poll_cq(cq, 1, &wc) != 1) continue;
        if (wc.status == IBV_WC_SUCCESS) ++done;
        if (wc.status == IBV_WC_REM_ACCESS_ERR) ++refused;
      }
    });
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (done == 0 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    EXPECT_NE(done, 0);
    std::this_thread::sleep_for(milliseconds(round));
    EXPECT_EQ(ibv_dereg_mr(target), 0);
    ASSERT_EQ(mmap(pages.at, pages.bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
              pages.at);
    std::this_thread::sleep_for(milliseconds(30));
    EXPECT_TRUE(pages.all(0)) << "round " << round;
    stop = true;
    writer.join();
    EXPECT_EQ(refused, 1) << "the peer was told";
    destroy(a);
    destroy(b);
  }
}

TEST_F(Conformance, C131_AnOverflowEndsTheCqAndItsQpsAndIsToldOnce) {
  ibv_cq* small = ibv_create_cq(context, 4, nullptr, nullptr, 0);
  ASSERT_NE(small, nullptr);
  const int room = small->cqe;
  ibv_qp* a = make_qp({});
  ibv_qp* b = make_qp({.cq = small});
  connect(a, b);
  for (int i = 0; i < room + 4; ++i) ASSERT_EQ(post_recv(b, i, sge(1024, 64)), 0);
  for (int i = 0; i < room + 4; ++i) ASSERT_EQ(post_send(a, 100 + i, sge(0, 8)), 0);
  EXPECT_EQ(events_within(IBV_EVENT_CQ_ERR, 500), 1);
  EXPECT_EQ(state_of(b), IBV_QPS_ERR);
  std::vector<ibv_wc> wcs(32);
  ASSERT_EQ(ibv_poll_cq(small, 32, wcs.data()), room);
  for (int i = 0; i < room; ++i) EXPECT_EQ(wcs[i].wr_id, static_cast<uint64_t>(i));
  EXPECT_LT(ibv_poll_cq(small, 32, wcs.data()), 0);
  ASSERT_EQ(post_recv(b, 50, sge(1024, 64)), 0);  // its flush finds no place any more
  EXPECT_LT(ibv_poll_cq(small, 32, wcs.data()), 0);
  EXPECT_EQ(events_within(IBV_EVENT_CQ_ERR, 50), 0);
  destroy(b);
  EXPECT_EQ(ibv_destroy_cq(small), 0);
}

TEST_F(Conformance, C140_NumbersAndKeysDoNotComeBackSoon) {
  std::set<uint32_t> numbers;
  std::set<uint32_t> keys;
  constexpr size_t kCount = 3000;
  for (size_t i = 0; i < kCount; ++i) {
    ibv_qp* qp = make_qp({.depth = 1});
    ASSERT_NE(qp, nullptr);
    numbers.insert(qp->qp_num);
    destroy(qp);
    ibv_mr* region = ibv_reg_mr(pd, memory, 64, 0);
    ASSERT_NE(region, nullptr);
    keys.insert(region->rkey);
    EXPECT_EQ(ibv_dereg_mr(region), 0);
  }
  EXPECT_EQ(numbers.size(), kCount);
  EXPECT_EQ(keys.size(), kCount);
}

TEST_F(Conformance, C080_WrongQKeysAreCountedAtThePort) {
  const auto violations = [this] {
    ibv_port_attr port{};
    EXPECT_EQ(verbs_get_ctx(context)->query_port(context, 1, &port, sizeof port), 0);
    return port.qkey_viol_cntr;
  };
  ibv_qp* a = make_qp({.type = IBV_QPT_UD});
  ibv_qp* b = make_qp({.type = IBV_QPT_UD});
  connect(a, b);
  ASSERT_EQ(post_recv(b, 1, sge(1024, 256)), 0);
  ibv_ah_attr where{};
  where.port_num = 1;
  where.dlid = lid;
  ibv_ah* ah = ibv_create_ah(pd, &where);
  ASSERT_NE(ah, nullptr);
  const uint32_t before = violations();
  for (uint32_t qkey : {kQkey + 1, kQkey}) {
    ibv_sge what = sge(0, 32);
    ibv_send_wr wr{};
    wr.sg_list = &what;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_SEND;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.ud = {.ah = ah, .remote_qpn = b->qp_num, .remote_qkey = qkey};
    ibv_send_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_send(a, &wr, &bad), 0);
  }
  EXPECT_EQ(completions(cq, 3).size(), 3u) << "two sent, one received";
  EXPECT_EQ(violations(), before + 1);
  EXPECT_EQ(ibv_destroy_ah(ah), 0);
}

}  // namespace
}  // namespace tbt::provider_live
