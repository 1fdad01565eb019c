// Thread domains and parent domains: what may be made on them, and what must go first.
#include "fixture.h"

namespace tbt::provider_test {
namespace {

int allocator_calls = 0;

void* count_alloc(ibv_pd*, void*, size_t, size_t, uint64_t) {
  ++allocator_calls;
  return IBV_ALLOCATOR_USE_DEFAULT;
}
void count_free(ibv_pd*, void*, void*, uint64_t) { ++allocator_calls; }

// The attributes, in the order of their declaration; what a test leaves out is absent.
ibv_parent_domain_init_attr parent_of(ibv_pd* pd, ibv_td* td = nullptr, uint32_t mask = 0,
                                      decltype(&count_alloc) alloc = nullptr,
                                      decltype(&count_free) free = nullptr,
                                      void* pd_context = nullptr) {
  return {pd, td, mask, alloc, free, pd_context};
}

class DomainTest : public QpFixture {
 protected:
  void SetUp() override {
    QpFixture::SetUp();
    ibv_td_init_attr attr{};
    td = ibv_alloc_td(context, &attr);
    ASSERT_NE(td, nullptr);
    parent = make_parent(parent_of(pd, td));
    ASSERT_NE(parent, nullptr);
  }
  void TearDown() override {
    EXPECT_EQ(ibv_dealloc_pd(parent), 0);
    EXPECT_EQ(ibv_dealloc_td(td), 0);
    QpFixture::TearDown();
  }
  ibv_pd* make_parent(ibv_parent_domain_init_attr attr) {
    errno = 0;
    return ibv_alloc_parent_domain(context, &attr);
  }
  void expect_refused(const ibv_parent_domain_init_attr& attr) {
    EXPECT_EQ(make_parent(attr), nullptr);
    EXPECT_EQ(errno, EINVAL);
  }

  ibv_td* td = nullptr;
  ibv_pd* parent = nullptr;
};

TEST_F(DomainTest, ADomainInUseIsBusy) {
  EXPECT_EQ(ibv_dealloc_td(td), EBUSY);
  EXPECT_EQ(ibv_dealloc_pd(pd), EBUSY);
}

TEST_F(DomainTest, UnknownAttributesAreRefused) {
  ibv_td_init_attr attr{.comp_mask = 1};
  errno = 0;
  EXPECT_EQ(ibv_alloc_td(context, &attr), nullptr);
  EXPECT_EQ(errno, EINVAL);
  expect_refused(parent_of(pd, nullptr, 1 << 2));
  expect_refused(parent_of(nullptr));
  expect_refused(parent_of(parent));
  expect_refused(parent_of(pd, nullptr, IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS, count_alloc));
  expect_refused(
      parent_of(pd, nullptr, IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS, nullptr, count_free));
}

TEST_F(DomainTest, DomainsOfAnotherContextAreRefused) {
  ibv_context* other = open("tbt0c0");
  ibv_pd* other_pd = ibv_alloc_pd(other);
  ibv_td_init_attr attr{};
  ibv_td* other_td = ibv_alloc_td(other, &attr);
  expect_refused(parent_of(other_pd));
  expect_refused(parent_of(pd, other_td));
  EXPECT_EQ(ibv_dealloc_td(other_td), 0);
  EXPECT_EQ(ibv_dealloc_pd(other_pd), 0);
  EXPECT_EQ(ibv_close_device(other), 0);
}

TEST_F(DomainTest, AllocatorsAreAcceptedAndNotCalled) {
  int user = 0;
  allocator_calls = 0;
  ibv_pd* custom = make_parent(parent_of(
      pd, nullptr, IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT,
      count_alloc, count_free, &user));
  ASSERT_NE(custom, nullptr);
  std::swap(pd, custom);
  ibv_qp* made = make_qp(IBV_QPT_RC);
  std::swap(pd, custom);
  ASSERT_NE(made, nullptr);
  EXPECT_EQ(ibv_destroy_qp(made), 0);
  EXPECT_EQ(ibv_dealloc_pd(custom), 0);
  EXPECT_EQ(allocator_calls, 0);
}

TEST_F(DomainTest, EachKindOfObjectHoldsItsParentDomain) {
  char memory[64];
  ibv_mr* mr = ibv_reg_mr(parent, memory, sizeof memory, 0);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(mr->pd, parent);
  EXPECT_EQ(ibv_dealloc_pd(parent), EBUSY);
  // Now it lies on the protection domain, and no longer holds the parent.
  EXPECT_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_PD, pd, nullptr, 0, 0), 0);
  EXPECT_EQ(ibv_dealloc_pd(parent), 0);
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
  parent = make_parent(parent_of(pd, td));

  ibv_srq_init_attr srq_attr{.srq_context = nullptr,
                             .attr = {.max_wr = 4, .max_sge = 1, .srq_limit = 0}};
  ibv_srq* srq = ibv_create_srq(parent, &srq_attr);
  EXPECT_EQ(ibv_dealloc_pd(parent), EBUSY);
  EXPECT_EQ(ibv_destroy_srq(srq), 0);

  ibv_ah_attr ah_attr{};
  ah_attr.port_num = 1;
  ibv_ah* ah = ibv_create_ah(parent, &ah_attr);
  EXPECT_EQ(ibv_dealloc_pd(parent), EBUSY);
  EXPECT_EQ(ibv_destroy_ah(ah), 0);

  std::swap(pd, parent);
  ibv_qp* made = make_qp(IBV_QPT_UD);
  std::swap(pd, parent);
  EXPECT_EQ(made->pd, parent);
  EXPECT_EQ(ibv_dealloc_pd(parent), EBUSY);
  EXPECT_EQ(ibv_destroy_qp(made), 0);
}

TEST_F(DomainTest, AnExtendedCqTakesAParentDomainAndNothingElse) {
  ibv_cq_init_attr_ex attr{};
  attr.cqe = 8;
  attr.comp_mask = IBV_CQ_INIT_ATTR_MASK_PD;
  attr.parent_domain = parent;
  ibv_cq_ex* made = ibv_create_cq_ex(context, &attr);
  ASSERT_NE(made, nullptr);
  EXPECT_EQ(ibv_dealloc_pd(parent), EBUSY);
  EXPECT_EQ(ibv_destroy_cq(ibv_cq_ex_to_cq(made)), 0);
  for (ibv_pd* wrong : {pd, static_cast<ibv_pd*>(nullptr)}) {
    attr.parent_domain = wrong;
    errno = 0;
    EXPECT_EQ(ibv_create_cq_ex(context, &attr), nullptr);
    EXPECT_EQ(errno, EINVAL);
  }
}

}  // namespace
}  // namespace tbt::provider_test
